"""The pictures of a page within so many bytes: each once, the newest lossless, older ones as far as there is room."""

from __future__ import annotations

import base64
import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from srgan_dist.errors import UserError
from srgan_dist.reports.crops import Crop, PairedImage, encode
from srgan_dist.utils.names import printable

_PREFIX = "data:image/webp;base64,"
_COMFORTABLE = 10_000_000  # bytes of a page that opens at once on a phone as well; more only where needed
_MOST_LOSSY = 1000  # pictures to encode: about four seconds of one core
_MARGIN = 1.15  # of the real size above the one that a sample promises
_SAMPLE = 8  # pictures
_QUALITY = 90


class Plan(NamedTuple):
    """What is kept of the crops."""

    lossless: str
    """all, best (the newest step and the best ones), newest or none."""
    quality: int = _QUALITY
    """Of the others, as lossy WebP."""
    most_steps: int | None = None
    """Of all those that the runs have."""
    most_images: int | None = None
    limit: int | None = None
    """Bytes beyond which the next plan is taken, if below those that the page has."""


# From the best; the first that fits is taken.
PLANS = (
    Plan("all", limit=_COMFORTABLE),
    Plan("best", limit=_COMFORTABLE),
    Plan("best", 80),
    Plan("best", 80, 20),
    Plan("best", 80, 10),
    Plan("best", 80, 6),
    Plan("best", 70, 4),
    Plan("newest", 70, 6),
    Plan("newest", 70, 4),
    Plan("newest", 60, 2),
    Plan("newest", 60, 1),
    Plan("none", 80, 4),
    Plan("none", 70, 2),
    Plan("none", 60, 1),
    Plan("none", 60, 1, 2),
    Plan("none", 60, 1, 1),
    Plan("none", 60, 1, 0),
)


class Embedded(NamedTuple):
    """Pictures as the page has them."""

    assets: list[str]
    """Data URLs, each once."""
    images: list[dict[str, Any]]
    """Name, size in pixels, and the assets of HR, bicubic and LR, null where there is none."""
    crops: Mapping[int, Mapping[int, list[list[int]]]]
    """By run, then by image: pairs of step and asset, ascending."""
    notes: list[str]
    """What was left out or made smaller."""


class _Wanted(NamedTuple):
    run: int
    image: int
    step: int
    crop: Crop
    is_lossless: bool


def embed(
    images: Sequence[PairedImage],
    *,
    best: Sequence[Iterable[int]],
    problems: Sequence[list[str]],
    max_bytes: int,
) -> Embedded:
    """Choose what of the crops fits, and encode it.

    Args:
        images: The images of the runs.
        best: Of each run, its best steps.
        problems: Of each run; pictures that cannot be read are appended, one line each.
        max_bytes: Of all data URLs.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for plan in PLANS:
            wanted = _wanted(images, plan, best)
            limit = min(max_bytes, plan.limit or max_bytes)
            is_last = plan == PLANS[-1]
            if not is_last and (
                sum(not one.is_lossless for one in wanted) > _MOST_LOSSY or _estimate(images, wanted, plan) > limit
            ):
                continue
            found, unread = _encode(images, wanted, plan, pool)
            if is_last or sum(map(len, found.assets)) <= limit:
                break
    for run, lines in unread.items():
        problems[run].extend(lines)
    return found


def _wanted(images: Sequence[PairedImage], plan: Plan, best: Sequence[Iterable[int]]) -> list[_Wanted]:
    shown = images[: plan.most_images]
    targets = _evenly({step for image in shown for crops in image.runs.values() for step in crops}, plan.most_steps)
    wanted = []
    for position, image in enumerate(shown):
        for run, crops in image.runs.items():
            steps = sorted(crops)
            marked = set() if plan.lossless == "none" else {steps[-1]}
            best_here = set() if plan.lossless == "none" else set(best[run]) & crops.keys()
            # Of each target the run's step that was the newest then: runs may have had other intervals.
            kept = {steps[at - 1] for target in targets if (at := bisect_right(steps, target))} | marked | best_here
            if plan.lossless != "newest":
                marked |= best_here
            for step in sorted(kept):
                is_lossless = plan.lossless == "all" or step in marked
                wanted.append(_Wanted(run, position, step, crops[step], is_lossless))
    return wanted


def _evenly(steps: Iterable[int], most: int | None) -> list[int]:
    """At most so many steps, evenly spread, the last one among them."""
    steps = sorted(steps)
    if most is None or len(steps) <= most:
        return steps
    first, last = (0, len(steps) - 1) if most > 1 else (len(steps) - 1, len(steps) - 1)
    return [steps[round(first + (last - first) * number / max(most - 1, 1))] for number in range(most)]


def _estimate(images: Sequence[PairedImage], wanted: Sequence[_Wanted], plan: Plan) -> float:
    """About how many bytes the data URLs of a plan have."""
    beside = [crop for image in images[: plan.most_images] for crop in (image.hr, image.lr, image.bicubic) if crop]
    lossless = sum(_size(crop) for crop in [*beside, *(one.crop for one in wanted if one.is_lossless)])
    others = [one.crop for one in wanted if not one.is_lossless]
    sample = others[:: max(1, len(others) // _SAMPLE)][:_SAMPLE]
    sizes = [len(data) for crop in sample if (data := _readable(crop, plan.quality))]
    lossy = sum(sizes) / len(sizes) * len(others) * _MARGIN if sizes else 0
    return (lossless + lossy) * 4 / 3


def _size(crop: Crop) -> int:
    try:
        return crop.size()
    except OSError:  # which the one who reads it reports
        return 0


def _readable(crop: Crop | None, quality: int | None) -> bytes | None:
    """A picture as WebP, lossless without a quality; None where it cannot be read, which whoever needs it reports."""
    try:
        if crop is None:
            return None
        return crop.lossless() if quality is None else encode(crop.pixels(), quality=quality)
    except (UserError, OSError):
        return None


def _encode(
    images: Sequence[PairedImage], wanted: Sequence[_Wanted], plan: Plan, pool: ThreadPoolExecutor
) -> tuple[Embedded, dict[int, list[str]]]:
    """Encode what is wanted. Returns it, and by run what could not be read."""
    places: dict[bytes, int] = {}

    def place(data: bytes) -> int:
        return places.setdefault(data, len(places))

    shown = images[: plan.most_images]
    entries: list[dict[str, Any]] = []
    for image in shown:
        pictures = {"hr": image.hr, "bicubic": image.bicubic, "lr": image.lr}
        data = {name: _readable(crop, None) for name, crop in pictures.items()}
        of = {name: place(content) if content else None for name, content in data.items()}
        entries.append({"name": image.name, "width": image.width, "height": image.height, **of})
    crops: dict[int, dict[int, list[list[int]]]] = defaultdict(lambda: defaultdict(list))
    unread: dict[int, list[str]] = defaultdict(list)
    contents = pool.map(lambda one: _content(one, images[one.image], plan.quality), wanted)
    for one, content in zip(wanted, contents, strict=True):
        if isinstance(content, bytes):
            crops[one.run][one.image].append([one.step, place(content)])
        else:
            unread[one.run].append(f"crop of {images[one.image].name} at step {one.step}: left out ({content})")
    assets = [_PREFIX + base64.b64encode(content).decode() for content in places]
    return Embedded(assets, entries, crops, _notes(images, wanted, plan)), unread


def _content(one: _Wanted, image: PairedImage, quality: int) -> bytes | str:
    """A crop as WebP, or why there is none."""
    try:
        pixels = one.crop.pixels()
        height, width = pixels.shape[:2]
        if (height, width) != (image.height, image.width):
            return f"it is {width}x{height}, its HR {image.width}x{image.height}"
        return one.crop.lossless() if one.is_lossless else encode(pixels, quality=quality)
    except (UserError, OSError) as error:
        return printable(str(error))


def _notes(images: Sequence[PairedImage], wanted: Sequence[_Wanted], plan: Plan) -> list[str]:
    """What of the crops is not on the page, or not as it was."""
    notes = []
    if not wanted and images:
        return ["The crops are too many for one page: compare fewer runs to see them."]
    if plan.most_images and len(images) > plan.most_images:
        left_out = ", ".join(image.name for image in images[plan.most_images :])
        notes.append(f"To keep the page small, images are left out: {left_out}.")
    there = {step for image in images for crops in image.runs.values() for step in crops}
    here = {one.step for one in wanted}
    if len(here) < len(there):
        notes.append(f"To keep the page small, crops of {len(here)} of {len(there)} steps are here.")
    if not all(one.is_lossless for one in wanted):
        which = {
            "best": "all crops but those of the newest and the best steps",
            "newest": "all crops but those of the newest step",
            "none": "all crops",
        }
        lossy = f"are lossy WebP (quality {plan.quality}); HR, bicubic and LR are lossless."
        notes.append(f"To keep the page small, {which[plan.lossless]} {lossy}")
    return notes
