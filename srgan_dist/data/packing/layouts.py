"""How folders of test and training images are laid out: which subfolder holds HR images, and which one LR images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from srgan_dist.data.packing.partial import PLAN_NAME
from srgan_dist.errors import UserError
from srgan_dist.imaging.listing import list_folder
from srgan_dist.utils.names import expand_home


class Layout(NamedTuple):
    """A known way to lay out a set, in folder names whose case does not matter.

    `{scale}` stands for the factor, and `{set}` for any text, the same in all names.

    Attributes:
        whose: Who publishes sets in this way.
        hr: The folder of HR images, "." for the set's own.
        lr: Folders of LR images, the first that is there counts; none where they are beside the HR images.
    """

    whose: str
    hr: str
    lr: Sequence[str]


_LR = (
    "LRx{scale}",
    "LRbicx{scale}",
    "LR_bicubic/X{scale}",
    "LR_x{scale}",
    "LR/X{scale}",
    "LR{scale}",
    "X{scale}",
    "LR",
    "LQ",
)
LAYOUTS = (
    Layout("BasicSR", "GTmod12", ("LRbicx{scale}",)),
    Layout("MMagic", "{set}_mod12", ("{set}_bicLRx{scale}",)),
    Layout(
        "DIV2K",
        "{set}_HR",
        (
            "{set}_LR_bicubic/X{scale}",
            "{set}_LR_unknown/X{scale}",
            "{set}_LR_x{scale}",
            "{set}_LRx{scale}",
            "{set}_LR",
            "{set}_LR_mild",
            "{set}_LR_difficult",
            "{set}_LR_wild",
        ),
    ),
    Layout("DIV2K's sub-images", "{set}_HR_sub", ("{set}_LR_bicubic/X{scale}_sub",)),
    Layout("SelfExSR", "image_SRF_{scale}", ()),
    Layout("HR and LR", "HR", _LR),
    Layout("GT and LQ", "GT", _LR),
    Layout("original and LR", "original", _LR),
    Layout("HR images around LR", ".", _LR),
)
_LR_INSIDE = ("X{scale}", "LRx{scale}", "LRbicx{scale}", "X{scale}_sub")  # of a folder that is given as that of LR
_KNOWN_LR = tuple(dict.fromkeys(name for layout in LAYOUTS for name in layout.lr))
_KNOWN = tuple(layout.hr for layout in LAYOUTS if layout.hr != ".") + _KNOWN_LR
_TRAINING, _TEST = ("train",), ("valid", "val", "test")  # what the name of a set may end with
# Pairs in one folder: NAME_HR, HR_NAME or NAME with NAME_LR, NAME_LR4, NAME_LRx4, LR_NAME, NAMEx4 or NAME_x4.
_HR_NAME = re.compile(r"hr[_-](?P<begin>.+)|(?P<end>.+)[_-]hr", re.IGNORECASE)
_LR_NAME = re.compile(r"lr[_-](?P<begin>.+)|(?P<end>.+)[_-]lr(?:_?x?(?P<scale>\d))?", re.IGNORECASE)
_X_NAME = re.compile(r"(?P<begin>(?!))|(?P<end>.+?)[_-]?x(?P<scale>\d)", re.IGNORECASE)
_MAX_NAMED = 6  # folders that one message names


class ImageFolders(NamedTuple):
    """The images of a set.

    Attributes:
        hr_dir: Folder of the HR images.
        hr: Their paths.
        lr_dir: Folder of the LR images; None where none are given.
        lr: Their paths.
        description: Where they were found, and what was left out, in one line.
    """

    hr_dir: Path
    hr: list[Path]
    lr_dir: Path | None
    lr: list[Path]
    description: str = ""


def find_images(
    folder: str | Path, lr_dir: str | Path | None = None, *, scale: int, training: bool = False
) -> ImageFolders:
    """List the HR images of a set, and its LR images if it has some of this scale.

    Args:
        folder: Folder of HR images, or one that is laid out as one of `LAYOUTS`.
        lr_dir: Folder of LR images, or of X2/, X4/ and so on; then `folder` has HR images alone.
        scale: HR pixels per LR pixel.
        training: Of several sets take the one for training, not the one for tests; and photographs may be sorted into
            subfolders, as long as none has a name that is known of LR images.

    Returns:
        The images: without LR images where none of this scale are given.

    Raises:
        UserError: A folder is unusable, or has several subfolders of images that fit no layout.
    """
    folder = expand_home(folder)
    paths, left_out = list_folder(folder)
    if lr_dir is not None:
        given = expand_home(lr_dir)
        lr, lr_left_out = list_folder(given)
        place = _first(_LR_INSIDE, given, _names(given, lr), scale=scale) or given
        images = ImageFolders(folder, paths, place, _below(place, lr))
        left = "; ".join(
            f"left out of {where}: {text}" for where, text in ((folder, left_out), (given, lr_left_out)) if text
        )
        described = f"{folder}: {len(paths)} HR images, {len(images.lr)} LR images in {place}"
        return images._replace(description=f"{described}; {left}" if left else described)
    # An archive is often unpacked into a folder of its own; there the layout begins where folders branch.
    base = folder / os.path.commonpath([path.parent.relative_to(folder) for path in paths])
    layout, found = _by_layout(base, paths, scale=scale, training=training)
    if not found:
        is_held_out = (folder.resolve().parent / PLAN_NAME).is_file()  # by `pack`, from subfolders that it accepted
        _refuse_mixed(folder, base, paths, scale=scale, may_branch=training or is_held_out)
        found = _pairs(folder, paths, scale=scale) or ImageFolders(folder, paths, None, [])
    described = _described(folder, paths, layout, found)
    return found._replace(description=f"{described}; left out: {left_out}" if left_out else described)


def _by_layout(
    base: Path, paths: Sequence[Path], *, scale: int, training: bool
) -> tuple[Layout | None, ImageFolders | None]:
    """The first layout by which each folder of images has a known name, and its images; None where there is none."""
    holders, names = _holders(base, paths), _names(base, paths)
    if len(holders) == 1:
        return None, None
    for layout in LAYOUTS:
        found = [match for name in names if (match := _fits(layout.hr, name, scale=scale))]
        known = layout.lr if layout.hr == "." else _KNOWN
        strangers = [name for name in holders if name != layout.hr and not _has_role(name, known)]
        if not found or strangers:
            continue
        chosen = _one_set(base, found, training=training)
        hr_dir = base / chosen[0]
        hr = [path for path in paths if path.parent == base] if layout.hr == "." else _below(hr_dir, paths)
        if not layout.lr:
            return layout, _pairs(hr_dir, hr, scale=scale) or ImageFolders(hr_dir, hr, None, [])
        lr_dir = _first(layout.lr, base, names, scale=scale, set_name=chosen.groupdict().get("set", ""))
        return layout, ImageFolders(hr_dir, hr, lr_dir, _below(lr_dir, paths) if lr_dir else [])
    return None, None


def _one_set(base: Path, found: Sequence[re.Match[str]], *, training: bool) -> re.Match[str]:
    if len(found) > 1:
        wanted = [
            match
            for match in found
            if match.groupdict().get("set", "").lower().endswith(_TRAINING if training else _TEST)
        ]
        if len(wanted) != 1:
            sets = ", ".join(match[0] for match in found[:_MAX_NAMED])
            raise UserError(f"{base}: holds several sets ({sets}), expected one: name the folder of one of them")
        found = wanted
    return found[0]


def _pairs(folder: Path, paths: Sequence[Path], *, scale: int) -> ImageFolders | None:
    """HR and LR images of one folder, distinguished by their names; None where no LR image stands beside an HR image.

    Args:
        folder: The folder.
        paths: Its images.
        scale: LR images of other scales are not used.

    Raises:
        UserError: There are images beside the pairs.
    """
    lr = {path: place for path in paths if (place := _place(path, _LR_NAME))}
    hr = {_place(path, _HR_NAME) or _plain(path): path for path in paths if path not in lr}
    # A name that ends in x4 is one of LR if the name without it is there.
    lr |= {path: place for path in hr.values() if (place := _place(path, _X_NAME)) and place in hr}
    paired = set(lr.values()) & hr.keys()
    if not paired:
        return None
    used = [path for place, path in hr.items() if place in paired and path not in lr]
    # Beside NAME_HR and NAME_LR, NAME_bicubic is what a method made of it.
    results = {path for path in paths if (path.parent, path.stem.lower().rpartition("_")[0]) in paired}
    strangers = [path.name for path in paths if path not in {*used, *lr, *results}]
    if strangers:
        names = ", ".join(strangers[:_MAX_NAMED]) + (", ..." if len(strangers) > _MAX_NAMED else "")
        raise UserError(
            f"{folder}: LR images stand beside HR images, such as {next(iter(lr)).name}, but not beside "
            f"{len(strangers)} others ({names}): move the LR images into LRx{scale}/ and the HR images into HR/, or "
            "the others elsewhere"
        )
    of_scale = [path for path in lr if _scale_in(path) in (None, scale)]
    return ImageFolders(folder, used, folder if of_scale else None, of_scale)


def _plain(path: Path) -> tuple[Path, str]:
    return path.parent, path.stem.lower()


def _place(path: Path, mark: re.Pattern[str]) -> tuple[Path, str] | None:
    """The folder of an image and its name without a mark; None where it has none."""
    match = mark.fullmatch(path.stem)
    return (path.parent, next(filter(None, match.group("begin", "end"))).lower()) if match else None


def _scale_in(path: Path) -> int | None:
    match = _LR_NAME.fullmatch(path.stem) or _X_NAME.fullmatch(path.stem)
    return int(match["scale"]) if match and match["scale"] else None


def _refuse_mixed(folder: Path, base: Path, paths: Sequence[Path], *, scale: int, may_branch: bool) -> None:
    holders = _holders(base, paths)
    inside = base.relative_to(folder).as_posix()
    if inside != "." and _has_role(inside, _KNOWN_LR):
        raise UserError(f"{folder}: holds LR images ({inside}), but none to compare them with, expected HR images")
    if len(holders) == 1 or (may_branch and not any(_has_role(name, _KNOWN) for name in holders)):
        return
    branches = list(dict.fromkeys(name.partition("/")[0] for name in holders))
    shown = ", ".join(branches[:_MAX_NAMED]) + (", ..." if len(branches) > _MAX_NAMED else "")
    layouts = ", ".join(f"{layout.hr}/" for layout in LAYOUTS if layout.hr != ".").format(set="SET", scale=scale)
    raise UserError(
        f"{base}: holds images in several folders ({shown}), which together fit no layout that is known, by "
        f"{layouts} for HR images: name the folder of HR images alone, or call it HR/ and that of LR images "
        f"LRx{scale}/, and move others elsewhere"
    )


def _described(folder: Path, paths: Sequence[Path], layout: Layout | None, images: ImageFolders) -> str:
    def place(inside: Path) -> str:
        return "" if inside == folder else f" in {inside.relative_to(folder)}/"

    lr = f"{len(images.lr)} LR images{place(images.lr_dir)}" if images.lr_dir else "LR images by our bicubic"
    used = {*images.hr, *images.lr}
    others = [path for path in paths if path not in used]
    left = ", ".join(f"{name}/" if name != "." else f"{others[0].name}" for name in _holders(folder, others))
    return (
        (f"{folder}: laid out as {layout.whose}: " if layout else f"{folder}: ")
        + f"{len(images.hr)} HR images{place(images.hr_dir)}, {lr}"
        + (f"; not used: {len(others)} images ({left})" if others else "")
    )


def _holders(base: Path, paths: Iterable[Path]) -> list[str]:
    """The folders that hold images themselves, relative to one around them."""
    return sorted({path.parent.relative_to(base).as_posix() for path in paths})


def _names(base: Path, paths: Iterable[Path]) -> list[str]:
    """The same, with the folders around them."""
    holders = _holders(base, paths)
    around = {parent.as_posix() for name in holders for parent in Path(name).parents}
    return sorted({*holders, *(around - {"."})})


def _below(folder: Path, paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_relative_to(folder)]


def _first(
    templates: Sequence[str], base: Path, names: Sequence[str], *, scale: int, set_name: str | None = None
) -> Path | None:
    for template in templates:
        fitting = [name for name in names if _fits(template, name, scale=scale, set_name=set_name)]
        if len(fitting) > 1:  # LR and lr, where case matters
            raise UserError(f"{base}: {' and '.join(fitting)} both are folders of LR images: move one elsewhere")
        if fitting:
            return base / fitting[0]
    return None


def _fits(template: str, name: str, *, scale: int | None = None, set_name: str | None = None) -> re.Match[str] | None:
    """Match the name of a folder with one of a layout; without a scale, or a set's name, any will do."""
    pattern = re.escape(template)
    pattern = pattern.replace(r"\{scale\}", r"\d" if scale is None else str(scale))
    pattern = pattern.replace(r"\{set\}", "(?P<set>[^/]+)" if set_name is None else re.escape(set_name))
    return re.fullmatch(pattern, name, re.IGNORECASE)


def _has_role(name: str, templates: Sequence[str]) -> bool:
    """Whether a folder, or one of those around it, has a name that is known, whatever scale it is of."""
    parts = name.split("/")
    tails = [
        "/".join(parts[begin:end]) for end in range(1, len(parts) + 1) for begin in (end - 1, end - 2) if begin >= 0
    ]
    return any(_fits(template, tail) for template in templates for tail in tails)
