"""Layouts of published sets: which images are HR, which are LR, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.packing.layouts import LAYOUTS, find_images
from srgan_dist.data.packing.pack import pack
from srgan_dist.data.packing.pairing import find_sources
from srgan_dist.errors import UserError
from srgan_dist.evaluation.test_sets import read_pairs
from srgan_dist.imaging.read import read_rgb
from srgan_dist.imaging.resize import downscale
from tests.conftest import ROOT

Maker = Callable[..., NDArray[np.uint8]]
HEIGHT, WIDTH = 48, 60


def given_lr(scale: int) -> NDArray[np.uint8]:
    """LR images that our bicubic does not make."""
    return np.full((HEIGHT // scale, WIDTH // scale, 3), 10 * scale, dtype=np.uint8)


@pytest.fixture
def lay_out(tmp_path: Path, make_image: Maker) -> Callable[[str], Path]:
    """Makes a set of images: ``hr NAME`` or ``SCALE NAME`` for LR images of that scale, one a line."""

    def make(text: str, folder: str = "set") -> Path:
        for number, line in enumerate(text.split("\n")):
            kind, _, name = line.strip().partition(" ")
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image = make_image(HEIGHT, WIDTH, number) if kind == "hr" else given_lr(int(kind))
            Image.fromarray(image).save(path)
        return tmp_path / folder

    return make


SETS = {
    "BasicSR": """hr GTmod12/baby.png
        hr GTmod12/bird.png
        2 LRbicx2/babyx2.png
        2 LRbicx2/birdx2.png
        4 LRbicx4/babyx4.png
        4 LRbicx4/birdx4.png
        hr original/baby.png""",
    "MMagic": """hr Set5_mod12/baby.png
        2 Set5_bicLRx2/baby.png
        4 Set5_bicLRx4/baby.png""",
    "DIV2K": """hr DIV2K_valid_HR/0801.png
        hr DIV2K_train_HR/0001.png
        hr DIV2K_train_HR/0002.png
        2 DIV2K_valid_LR_bicubic/X2/0801x2.png
        4 DIV2K_valid_LR_bicubic/X4/0801x4.png
        4 DIV2K_valid_LR_mild/0801x4m.png
        4 DIV2K_train_LR_bicubic/X4/0001x4.png
        4 DIV2K_train_LR_bicubic/X4/0002x4.png""",
    "mild": """hr DIV2K_valid_HR/0801.png
        4 DIV2K_valid_LR_mild/0801x4m.png""",
    "difficult": """hr DIV2K_valid_HR/0801.png
        4 DIV2K_valid_LR_difficult/0801x4d.png""",
    "DIV2K's sub-images": """hr DIV2K_train_HR_sub/0001_s001.png
        4 DIV2K_train_LR_bicubic/X4_sub/0001_s001.png""",
    "an archive of each": """hr Set5_HR/baby.png
        2 Set5_LR_x2/baby.png
        4 Set5_LR_x4/baby.png""",
    "EDSR": """hr Set5/HR/baby.png
        2 Set5/LR_bicubic/X2/babyx2.png
        4 Set5/LR_bicubic/X4/babyx4.png""",
    "SelfExSR": """hr image_SRF_4/img_001_SRF_4_HR.png
        4 image_SRF_4/img_001_SRF_4_LR.png
        hr image_SRF_4/img_001_SRF_4_SRCNN.png
        hr image_SRF_2/img_001_SRF_2_HR.png
        2 image_SRF_2/img_001_SRF_2_LR.png""",
    "one folder": """hr img_001_SRF_4_HR.png
        4 img_001_SRF_4_LR.png
        hr img_001_SRF_4_bicubic.png""",
    "RealSR": """hr Canon_001_HR.png
        2 Canon_001_LR2.png
        4 Canon_001_LR4.png""",
    "prefixes": """hr HR_1.png
        4 LR_1.png""",
    "HR and LR": "hr HR/a/baby.png\n4 LR/a/baby.png",
    "ours": "hr HR/baby.png\n2 LRx2/baby.png\n4 LRx4/baby.png",
    "SwinIR": "hr HR/baby.png\n4 X4/baby_LRx4.png",
    "case": "hr hr/baby.png\n4 LRX4/baby.png",
    "GT and LQ": "hr GT/baby.png\n4 LQ/baby.png",
    "original and LR": "hr original/baby.png\n4 LRx4/baby.png",
    "HR images around LR": "hr baby.png\n4 LRx4/baby.png\n2 LRx2/baby.png",
}


@pytest.mark.parametrize("name", SETS)
def test_known_layouts_are_recognised_and_given_lr_images_are_used(
    lay_out: Callable[[str], Path], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO, logger="srgan_dist")
    pairs = list(read_pairs(lay_out(SETS[name]), scale=4))
    assert len(pairs) == (2 if name == "BasicSR" else 1)
    for pair in pairs:
        np.testing.assert_array_equal(pair.lr[0].permute(1, 2, 0).numpy(), given_lr(4))
        assert pair.hr.shape[2:] == (HEIGHT, WIDTH)
    (line,) = caplog.messages
    assert f"{len(pairs)} HR images" in line
    assert f"{len(pairs)} LR images" in line
    if name in {layout.whose for layout in LAYOUTS}:
        assert f": laid out as {name}: " in line


def test_the_line_says_what_is_read_and_what_not(
    lay_out: Callable[[str], Path],
) -> None:
    folder = lay_out(SETS["BasicSR"])
    (folder / "GTmod12" / "notes.txt").touch()
    (folder / "GTmod12" / ".hidden").mkdir()
    sets = [find_images(folder, scale=4), find_images(folder, scale=3), find_images(folder / "GTmod12", scale=4)]
    left = "hidden: 1 (GTmod12/.hidden), of other formats: 1 (GTmod12/notes.txt)"
    assert [images.description for images in sets] == [
        f"{folder}: laid out as BasicSR: 2 HR images in GTmod12/, 2 LR images in LRbicx4/; not used: 3 images "
        f"(LRbicx2/, original/); left out: {left}",
        f"{folder}: laid out as BasicSR: 2 HR images in GTmod12/, LR images by our bicubic; not used: 5 images "
        f"(LRbicx2/, LRbicx4/, original/); left out: {left}",
        f"{folder / 'GTmod12'}: 2 HR images, LR images by our bicubic; left out: {left.replace('GTmod12/', '')}",
    ]


def test_of_a_set_for_training_and_one_for_tests_each_command_takes_its_own(
    lay_out: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = lay_out(SETS["DIV2K"])
    assert [pair.name for pair in read_pairs(folder, scale=4)] == ["0801"]
    manifest = pack(folder, tmp_path / "out", scale=4)
    assert (manifest.num_images, manifest.kernel) == (2, "given as images")
    given = folder / "DIV2K_train_LR_bicubic"  # the folder of all scales
    assert pack(folder / "DIV2K_train_HR", tmp_path / "again", lr_dir=given).num_images == 2


MIXED = {
    "two folders": "hr a/1.png\nhr b/1.png",
    "an unknown one beside known ones": "hr HR/1.png\n4 LRx4/1.png\nhr results/1.png",
    "images beside HR": "hr HR/1.png\n4 LRx4/1.png\nhr figure.png",
    "no HR": "2 LRbicx2/1.png\n4 LRbicx4/1.png",
    "several sets": "hr Set5/HR/1.png\n4 Set5/LRx4/1.png\nhr Set14/HR/1.png",
}


@pytest.mark.parametrize("name", MIXED)
def test_several_folders_that_fit_no_layout_are_refused(lay_out: Callable[[str], Path], name: str) -> None:
    folder = lay_out(MIXED[name])
    with pytest.raises(UserError, match=r"holds images in several folders \(.*name the folder of HR images") as caught:
        find_images(folder, scale=4)
    assert "\n" not in str(caught.value)
    if name != "two folders":
        with pytest.raises(UserError, match="holds images in several folders"):
            find_images(folder, scale=4, training=True)


def test_lr_images_alone_and_two_sets_of_one_layout_are_refused(lay_out: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"holds LR images \(LRbicx4\), but none to compare them with"):
        find_images(lay_out("4 LRbicx4/1.png", "alone"), scale=4)
    with pytest.raises(UserError, match=r"holds several sets \(Set14_HR, Set5_HR\), expected one"):
        find_images(lay_out("hr Set5_HR/1.png\nhr Set14_HR/1.png", "several"), scale=4)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("hr", ["a_HR", "a", "HR_a"])
@pytest.mark.parametrize("lr", ["a_LRx2", "a_LR2", "ax2", "a_x2"])
def test_lr_images_of_another_scale_in_the_same_folder_are_not_hr_images(
    lay_out: Callable[[str], Path], hr: str, lr: str, scale: int
) -> None:
    images = find_images(lay_out(f"hr {hr}.png\n2 {lr}.png"), scale=scale)
    assert [path.stem for path in images.hr] == [hr]
    assert [path.stem for path in images.lr] == ([lr] if scale == 2 else [])
    assert len(find_sources(images, scale=scale)) == 1


def test_a_single_pair_does_not_hide_the_other_photographs(lay_out: Callable[..., Path]) -> None:
    folder = lay_out("hr cat_hr.png\n4 cat_lr.png\nhr one.png\nhr two.png")
    with pytest.raises(UserError, match=r"such as cat_lr\.png, but not beside 2 others \(one\.png, two\.png\): move"):
        find_images(folder, scale=4)
    assert len(find_images(lay_out("hr photo_x4.png\nhr x4.png\nhr my_lr.png", "own"), scale=4).hr) == 3


def test_folders_whose_names_differ_in_case_are_several(lay_out: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"holds several sets \(HR, hr\)"):
        find_images(lay_out("hr HR/a.png\nhr hr/a.png"), scale=4)
    with pytest.raises(UserError, match="LR and lr both are folders of LR images: move one elsewhere"):
        find_images(lay_out("hr HR/a.png\n4 LR/a.png\n4 lr/a.png", "lr"), scale=4)


def test_a_path_that_begins_with_two_slashes(lay_out: Callable[[str], Path]) -> None:
    images = find_images(f"/{lay_out(SETS['BasicSR'])}", scale=4)
    assert (len(images.hr), len(images.lr)) == (2, 2)


def test_photographs_sorted_into_folders_are_packed_and_their_validation_images_are_read(
    lay_out: Callable[[str], Path], tmp_path: Path
) -> None:
    photos = lay_out("\n".join(f"hr {year}/{number}.png" for year in (2024, 2025) for number in range(12)))
    manifest = pack(photos, tmp_path / "out", validation_fraction=0.5)
    assert manifest.num_images + manifest.num_validation == 24
    held_out = tmp_path / "out" / "validation"
    assert len({path.parent for path in held_out.rglob("*.png")}) == 2
    assert len(list(read_pairs(held_out, scale=4))) == manifest.num_validation


def test_lr_images_rounded_up_are_cropped_to_what_both_cover(tmp_path: Path, make_image: Maker) -> None:
    hr = make_image(46, 57)
    padded = np.pad(hr, ((0, 2), (0, 3), (0, 0)), mode="edge")  # ceil(46 / 4) = 12, ceil(57 / 4) = 15
    for name, image in (("HR", hr), ("LRx4", downscale(padded, 4))):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "set" / name / "a.png")
    (pair,) = read_pairs(tmp_path / "set", scale=4)
    assert (pair.hr.shape[2:], pair.lr.shape[2:]) == ((44, 56), (11, 14))
    given = read_rgb(tmp_path / "set" / "LRx4" / "a.png")
    np.testing.assert_array_equal(pair.lr[0].permute(1, 2, 0).numpy(), given[:11, :14])
    assert pack(tmp_path / "set", tmp_path / "out").num_samples == 1


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("baby", "baby_bicLRx4"),
        ("baby", "babyx4m"),
        ("baby", "babyx4d"),
        ("baby", "baby_LR4"),
        ("baby_HR", "baby_LR"),
        ("HR_baby", "LR_baby"),
        ("hr_baby", "baby"),
        ("baby_HR_x4", "baby_LRBI_x4"),
        ("img_001_SRF_4_HR", "img_001_SRF_4_LR"),
        ("a/HR_1", "a/1x4"),
    ],
)
def test_names_of_pairs(lay_out: Callable[[str], Path], hr: str, lr: str) -> None:
    folder = lay_out(f"hr HR/{hr}.png\n4 LR/{lr}.png\nhr HR/other.png\n4 LR/other.png")
    sources = find_sources(find_images(folder / "HR", folder / "LR", scale=4), scale=4)
    assert (folder / "HR" / f"{hr}.png", folder / "LR" / f"{lr}.png") in {(source.hr, source.lr) for source in sources}


def test_the_documentation_has_every_layout() -> None:
    text = (ROOT / "docs" / "data.md").read_text()
    for layout in LAYOUTS:
        for name in (layout.hr, *layout.lr):
            shown = name.format(set="SET", scale=4)
            assert f"`{shown}`" in text or f"`{shown.removeprefix('SET_LR')}`" in text or name == "."
