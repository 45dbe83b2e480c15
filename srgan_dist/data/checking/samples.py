"""From the members of a tar to samples: which halves belong together, and which stand alone, apart or twice."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from srgan_dist.data.checking.image import IMAGE_SUFFIXES, read_header
from srgan_dist.data.checking.tar import Member, Tell, read_at, walk_tar

_NAME = re.compile(
    rf"(?P<key>(?:.*/)?[^/.][^/]*?)(?:\.(?P<side>hr|lr))?\.(?P<suffix>{'|'.join(IMAGE_SUFFIXES)})",
    re.IGNORECASE | re.DOTALL,
)
_SCALE_VOTES = 16
_OTHER = {"hr": "lr", "lr": "hr"}


class Half(NamedTuple):
    """One image of a sample.

    Attributes:
        key: the name up to `.hr.`, `.lr.` or the suffix.
        side: hr, lr, or "" for an image whose LR is to be made on the fly.
        suffix: of the name, in lower case.
        member: where it lies.
    """

    key: str
    side: str
    suffix: str
    member: Member


class Sample(NamedTuple):
    """A pair, or an HR image alone (`lr` is None)."""

    hr: Half
    lr: Half | None


def read_samples(members: Iterable[Member], tell: Tell, note: Tell) -> Iterator[Sample]:
    """Group the members of one tar as WebDataset does, and tell where that would go wrong.

    Args:
        members: of one tar, in order.
        tell: called with each fault: halves that are missing, apart or there twice, keys with dots.
        note: called with each member that belongs to no sample.

    Yields:
        Samples, in the order of their last member; pairs whose halves lie apart at the end.
    """
    seen: dict[tuple[str, str], int] = {}  # (key, side), and the offset of the first
    lone: dict[tuple[str, str], Half] = {}
    odd: list[Half] = []
    waiting: Half | None = None
    for member in members:
        half = _half(member)
        key = half.key if half else _webdataset_key(member.name)  # KEY.json between the halves does no harm
        if waiting is not None and key != waiting.key:
            lone[waiting.key, waiting.side] = waiting
            waiting = None
        if half is None:
            note(member.name, member.offset, "is no plain file" if not member.is_file else "belongs to no pair")
            continue
        if half.side == "" and "." in half.key.rpartition("/")[2]:
            odd.append(half)
            continue
        first = seen.setdefault((half.key, half.side), member.offset)
        if first != member.offset:
            tell(member.name, member.offset, f"is there twice, the first at offset {first}: only one is ever read")
            continue
        _tell_dots(half, tell)
        if half.side == "":
            yield Sample(half, None)
        elif waiting is None:
            waiting = half
        else:
            yield _pair(waiting, half)
            waiting = None
    if waiting is not None:
        lone[waiting.key, waiting.side] = waiting
    _tell_odd(odd, {key for key, _ in seen}, tell, note)
    yield from _apart(lone, seen, tell)


def _half(member: Member) -> Half | None:
    found = _NAME.fullmatch(member.name) if member.is_file else None
    if found is None:
        return None
    return Half(found["key"], (found["side"] or "").lower(), found["suffix"].lower(), member)


def _webdataset_key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _pair(one: Half, other: Half) -> Sample:
    return Sample(one, other) if one.side == "hr" else Sample(other, one)


def _tell_dots(half: Half, tell: Tell) -> None:
    if "." in half.key.rpartition("/")[2]:
        read_as = _webdataset_key(half.member.name)
        field = half.member.name[len(read_as) + 1 :]
        tell(
            half.member.name, half.member.offset, f"key holds a dot: WebDataset reads key {read_as!r}, field {field!r}"
        )


def _tell_odd(odd: Iterable[Half], keys: set[str], tell: Tell, note: Tell) -> None:
    for half in odd:
        if _webdataset_key(half.member.name) in keys:  # KEY.mask.png beside KEY.jpg
            note(half.member.name, half.member.offset, "belongs to no pair")
        else:
            _tell_dots(half, tell)


def _apart(lone: dict[tuple[str, str], Half], seen: dict[tuple[str, str], int], tell: Tell) -> Iterator[Sample]:
    for (key, side), half in lone.items():
        other = lone.get((key, _OTHER[side]))
        if other is None:
            told = f"{_OTHER[side].upper()} half is missing: no member {key + '.' + _OTHER[side] + '.' + half.suffix!r}"
            if (key, "") in seen:
                told += f", but there is an image of that key at offset {seen[key, '']}"
            tell(half.member.name, half.member.offset, told)
        elif half.member.offset < other.member.offset:
            where = f"{other.member.name!r} is at offset {other.member.offset}"
            tell(half.member.name, half.member.offset, f"halves are not adjacent: {where}")
            yield _pair(half, other)


def list_samples(file: BinaryIO) -> Iterator[Sample]:
    """Yield the samples of a tar like `read_samples`, telling nothing."""
    return read_samples(walk_tar(file, _mute), _mute, _mute)


def vote_scale(shards: Iterable[Path]) -> int | None:
    """Find out the scale of shards without a manifest.

    Args:
        shards: tars.

    Returns:
        HR pixels per LR pixel of most of the first 16 pairs; None where no pair has a whole ratio.
    """
    votes: Counter[int] = Counter()
    voters = (ratio for shard in shards for ratio in _ratios(shard))
    for ratio, _ in zip(voters, range(_SCALE_VOTES), strict=False):
        votes[ratio] += 1
    return votes.most_common(1)[0][0] if votes else None


def _ratios(shard: Path) -> Iterator[int]:
    with contextlib.suppress(OSError), open(shard, "rb") as file:
        for sample in list_samples(file):
            halves = [sample.hr, sample.lr] if sample.lr else []
            with contextlib.suppress(ValueError):  # told when its image is checked
                sizes = [read_header(read_at(file, h.member.offset, h.member.size), h.suffix)[:2] for h in halves]
                if not sizes or not (ratio := sizes[0][0] // max(sizes[1][0], 1)):
                    continue
                if (sizes[0][0] // ratio, sizes[0][1] // ratio) == sizes[1]:
                    yield ratio


def _mute(member: str, offset: int, what: str) -> None:
    """Tell nothing: it is told when the samples are checked."""
