"""Reads a tar's headers strictly, and reports what tarfile and WebDataset silently ignore."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512
ReportFault = Callable[[str, int, str], None]
"""Called with each fault: the member's name or "", the offset in bytes, and what is wrong."""

_ZEROS = bytes(BLOCK)
_SCAN = 1 << 20  # bytes read at once while looking for the next header
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LONG_NAME, _PAX, _PAX_ALL = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE
_EXTENSIONS = (_LONG_NAME, tarfile.GNUTYPE_LONGLINK, _PAX, _PAX_ALL, tarfile.SOLARIS_XHDTYPE)
_MAX_EXTENSION = 1 << 20  # names and attributes need no more
_DIGITS = 20  # of a length, in 64 bits
_PAX_LENGTH = re.compile(rb"([0-9]{1,7}) ")
_OTHER_FILES = (
    (b"\x1f\x8b", "is compressed (gzip)"),
    (b"BZh", "is compressed (bzip2)"),
    (b"\xfd7zXZ", "is compressed (xz)"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd)"),
    (b"PK\x03\x04", "is a zip file"),
    (b"<", "is a page of HTML or XML, as servers send instead of a file"),
)


class Member(NamedTuple):
    """One member of a tar.

    Attributes:
        name: Name as stored, with its folders.
        header: Offset of the first header block that belongs to it, in bytes.
        offset: Offset of its data, in bytes.
        size: Length of its data in bytes, without padding.
        is_file: Whether it is a plain file, and not a folder or a link.
    """

    name: str
    header: int
    offset: int
    size: int
    is_file: bool


def walk_tar(file: BinaryIO, report: ReportFault) -> Iterator[Member]:
    """Read the headers of a tar one after another, and resume after damage at the next sound header.

    Only headers are read; the caller may move the file's position between two members.

    Args:
        file: An uncompressed tar, opened for reading.
        report: Called with each fault, in the order of the members.

    Yields:
        The members whose header is sound and whose data is complete.
    """
    length = file.seek(0, os.SEEK_END)
    if other := _other_file(file, length):
        report("", 0, other)
        return
    position, start = 0, None
    extension: dict[str, str] = {}  # from the pax and GNU headers of the member that follows
    while position < length:
        block = read_at(file, position, BLOCK)
        if len(block) < BLOCK:
            report("", position, f"cut short inside a header: {len(block)} of {BLOCK} bytes are there")
            return
        if block == _ZEROS:
            resumed = _after_end(file, position, length, report)
        elif isinstance(info := _parse(block), str):
            what = f"{info}: the header is damaged"
            resumed = _after_damage(file, position, length, what, _guess(block), report)
            if resumed is None and read_at(file, length - 2 * BLOCK, 2 * BLOCK) == 2 * _ZEROS:
                return
        elif info.type in _EXTENSIONS and position + BLOCK + info.size <= length:
            start = position if start is None else start
            extension |= _read_extension(file, info, position + BLOCK)
            position += BLOCK + _padded(info.size)
            continue
        else:
            header, size = position if start is None else start, int(extension.get("size", info.size))
            member = Member(extension.get("path", info.name), header, position + BLOCK, size, info.type in _PLAIN)
            if member.offset + size > length:
                there = f"{length - member.offset} of {size} bytes are there"
                resumed = _after_damage(file, position, length, f"cut short inside data: {there}", member.name, report)
                if resumed is None:
                    return
            else:
                yield member
                resumed = member.offset + _padded(size)
        if resumed is None:
            return
        position, start, extension = resumed, None, {}
    report("", length, "ends without the two blocks of zeros that end a tar: cut short, or its writer was stopped")


def read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    """Read `count` bytes at `offset`, fewer where the file ends."""
    file.seek(offset)
    return file.read(count)


def member_at(file: BinaryIO, header: int) -> Member | None:
    """Read the member whose first header block is at an offset.

    Args:
        file: The tar.
        header: `Member.header` of a member found before.

    Returns:
        The member, or None where there is no longer one.
    """
    extension: dict[str, str] = {}
    position = header
    while len(block := read_at(file, position, BLOCK)) == BLOCK:
        info = _parse(block)
        if isinstance(info, str):
            return None
        if info.type not in _EXTENSIONS:
            size = int(extension.get("size", info.size))
            return Member(extension.get("path", info.name), header, position + BLOCK, size, info.type in _PLAIN)
        extension |= _read_extension(file, info, position + BLOCK)
        position += BLOCK + _padded(info.size)
    return None


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _parse(block: bytes) -> tarfile.TarInfo | str:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return "checksum is wrong" if "checksum" in str(error) else str(error)
    except ValueError as error:  # malformed numbers under a right checksum
        return str(error)
    return info if info.size >= 0 else f"size is {info.size}"


def _guess(block: bytes) -> str:
    return block[:100].split(b"\0")[0].decode(errors="replace")


def _read_extension(file: BinaryIO, info: tarfile.TarInfo, offset: int) -> dict[str, str]:
    data = read_at(file, offset, min(info.size, _MAX_EXTENSION))
    if info.type == _LONG_NAME:
        return {"path": data.split(b"\0")[0].decode("utf-8", "surrogateescape")}
    found: dict[str, str] = {}
    begin = 0
    while info.type in (_PAX, tarfile.SOLARIS_XHDTYPE) and begin < len(data):
        start = _PAX_LENGTH.match(data, begin)
        if not start or not start.end() < (end := begin + int(start[1])) <= len(data):
            break  # the rest is not in the form "LENGTH KEY=VALUE\n"; the plain header still counts
        key, _, value = data[start.end() : end - 1].partition(b"=")
        if key == b"path" or (key == b"size" and value.isdigit() and len(value) < _DIGITS):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        begin = end
    return found


def _after_end(file: BinaryIO, position: int, length: int, report: ReportFault) -> int | None:
    if read_at(file, position + BLOCK, BLOCK) != _ZEROS:
        report("", position, "only one block of zeros where two end a tar")
    more = _next_header(file, position + BLOCK, length)
    if more is not None:  # an appended tar, or a hole left by a crash
        report("", position, f"zeros end the tar here for every reader, but another header follows at offset {more}")
    return more


def _after_damage(file: BinaryIO, position: int, length: int, what: str, name: str, report: ReportFault) -> int | None:
    resumed = _next_header(file, position + BLOCK, length)
    follows = "no other follows" if resumed is None else f"the next sound one is at offset {resumed}"
    report(name, position, f"{what}; {follows}")
    if resumed is None and read_at(file, length - 2 * BLOCK, 2 * BLOCK) != 2 * _ZEROS and "data" not in what:
        report("", length, "ends without the two blocks of zeros that end a tar")
    return resumed


def _next_header(file: BinaryIO, position: int, length: int) -> int | None:
    while position < length:
        piece = read_at(file, position, _SCAN)
        found = piece.find(b"ustar")
        while found != -1:
            at = found - 257  # where the magic stands in a header
            if at >= 0 and at % BLOCK == 0 and not isinstance(_parse(piece[at : at + BLOCK]), str):
                return position + at
            found = piece.find(b"ustar", found + 1)
        position += len(piece)
    return None


def _other_file(file: BinaryIO, length: int) -> str | None:
    start = read_at(file, 0, BLOCK)
    if not start:
        return "is empty (0 bytes), expected a tar"
    if isinstance(_parse(start), str) and start != _ZEROS:
        for magic, text in _OTHER_FILES:
            if start.lstrip().startswith(magic):
                return f"{text}, expected an uncompressed tar"
        if _next_header(file, 0, length) is None:
            return "is not a tar: no header has a right checksum"
    return None
