"""Groups the members of a tar into samples, and reports halves that are missing, apart or duplicated."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from srgan_dist.data.checking.image import IMAGE_SUFFIXES, read_image_header
from srgan_dist.data.shard_format.tar import Member, ReportFault, read_at, walk_tar

_NAME = re.compile(
    rf"(?P<key>(?:.*/)?[^/.][^/]*?)(?:\.(?P<side>hr|lr))?\.(?P<suffix>{'|'.join(IMAGE_SUFFIXES)})",
    re.IGNORECASE | re.DOTALL,
)
_SCALE_VOTES = 16
_OTHER = {"hr": "lr", "lr": "hr"}


class Half(NamedTuple):
    """The HR or the LR image of a sample, as a member of a tar.

    Attributes:
        key: The name up to `.hr.`, `.lr.` or the suffix.
        side: "hr", "lr", or "" for an image whose LR image is made during training.
        suffix: Suffix of the name, in lower case.
        member: Where it is stored.
    """

    key: str
    side: str
    suffix: str
    member: Member


class SampleMembers(NamedTuple):
    """The members of a pair, or of an HR image alone, where `lr` is None."""

    hr: Half
    lr: Half | None


def read_samples(members: Iterable[Member], report: ReportFault, note: ReportFault) -> Iterator[SampleMembers]:
    """Group the members of one tar as WebDataset does, and report where that would fail.

    Args:
        members: Members of one tar, in order.
        report: Called with each fault: halves that are missing, apart or duplicated, keys with dots.
        note: Called with each member that belongs to no sample.

    Yields:
        Samples, in the order of their last member; pairs whose halves are not adjacent come last.
    """
    seen: dict[tuple[str, str], int] = {}  # (key, side), and the offset of the first
    lone: dict[tuple[str, str], Half] = {}
    dotted: list[Half] = []
    waiting: Half | None = None
    for member in members:
        half = _half(member)
        key = half.key if half else _webdataset_key(member.name)  # KEY.json between the halves is harmless
        if waiting is not None and key != waiting.key:
            lone[waiting.key, waiting.side] = waiting
            waiting = None
        if half is None:
            note(member.name, member.offset, "is no plain file" if not member.is_file else "belongs to no pair")
            continue
        if half.side == "" and "." in half.key.rpartition("/")[2]:
            dotted.append(half)
            continue
        first = seen.setdefault((half.key, half.side), member.offset)
        if first != member.offset:
            report(member.name, member.offset, f"occurs twice, first at offset {first}: only one is ever read")
            continue
        _report_dots(half, report)
        if half.side == "":
            yield SampleMembers(half, None)
        elif waiting is None:
            waiting = half
        else:
            yield _pair(waiting, half)
            waiting = None
    if waiting is not None:
        lone[waiting.key, waiting.side] = waiting
    _report_dotted(dotted, {key for key, _ in seen}, report, note)
    yield from _apart(lone, seen, report)


def _half(member: Member) -> Half | None:
    found = _NAME.fullmatch(member.name) if member.is_file else None
    if found is None:
        return None
    return Half(found["key"], (found["side"] or "").lower(), found["suffix"].lower(), member)


def _webdataset_key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _pair(one: Half, other: Half) -> SampleMembers:
    return SampleMembers(one, other) if one.side == "hr" else SampleMembers(other, one)


def _report_dots(half: Half, report: ReportFault) -> None:
    if "." in half.key.rpartition("/")[2]:
        read_as = _webdataset_key(half.member.name)
        field = half.member.name[len(read_as) + 1 :]
        report(
            half.member.name,
            half.member.offset,
            f"key contains a dot: WebDataset reads key {read_as!r}, field {field!r}",
        )


def _report_dotted(dotted: Iterable[Half], keys: set[str], report: ReportFault, note: ReportFault) -> None:
    for half in dotted:
        if _webdataset_key(half.member.name) in keys:  # KEY.mask.png beside KEY.jpg
            note(half.member.name, half.member.offset, "belongs to no pair")
        else:
            _report_dots(half, report)


def _apart(
    lone: dict[tuple[str, str], Half], seen: dict[tuple[str, str], int], report: ReportFault
) -> Iterator[SampleMembers]:
    for (key, side), half in lone.items():
        other = lone.get((key, _OTHER[side]))
        if other is None:
            what = f"{_OTHER[side].upper()} half is missing: no member {key + '.' + _OTHER[side] + '.' + half.suffix!r}"
            if (key, "") in seen:
                what += f", but there is an image of that key at offset {seen[key, '']}"
            report(half.member.name, half.member.offset, what)
        elif half.member.offset < other.member.offset:
            where = f"{other.member.name!r} is at offset {other.member.offset}"
            report(half.member.name, half.member.offset, f"halves are not adjacent: {where}")
            yield _pair(half, other)


def list_samples(file: BinaryIO) -> Iterator[SampleMembers]:
    """Yield the samples of a tar like `read_samples`, without reporting anything."""
    return read_samples(walk_tar(file, _ignore), _ignore, _ignore)


def vote_scale(shards: Iterable[Path]) -> int | None:
    """Derive the scale of shards without a manifest.

    Args:
        shards: Paths of the tars.

    Returns:
        The most common HR pixels per LR pixel of the first 16 pairs; None where no pair has a whole ratio.
    """
    votes: Counter[int] = Counter()
    voters = (ratio for shard in shards for ratio in _ratios(shard))
    for ratio, _ in zip(voters, range(_SCALE_VOTES), strict=False):
        votes[ratio] += 1
    return votes.most_common(1)[0][0] if votes else None


def _ratios(shard: Path) -> Iterator[int]:
    if not shard.is_file():
        return
    with contextlib.suppress(OSError), open(shard, "rb") as file:
        for sample in list_samples(file):
            halves = [sample.hr, sample.lr] if sample.lr else []
            with contextlib.suppress(ValueError):  # reported when its image is checked
                sizes = [read_image_header(read_at(file, h.member.offset, h.member.size), h.suffix)[:2] for h in halves]
                if not sizes or not (ratio := sizes[0][0] // max(sizes[1][0], 1)):
                    continue
                if (sizes[0][0] // ratio, sizes[0][1] // ratio) == sizes[1]:
                    yield ratio


def _ignore(member: str, offset: int, what: str) -> None:
    """Ignore a fault, which is reported when the samples are checked."""
