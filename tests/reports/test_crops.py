"""Crops across runs: what belongs together, each picture once, and within so many bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_dist.imaging.contact_sheet import contact_sheet
from srgan_dist.reports.assets import Embedded, embed
from srgan_dist.reports.crops import Crop, Crops, PairedImage, pair
from srgan_dist.reports.sheets import crops_of_sheets
from tests.conftest import smooth_noise
from tests.reports.runs import Pixels, blurred, write_crops

HR = smooth_noise(96, 96, seed=1)
ANYTHING = 10**9


def crops_of(run: Path, name: str = "photo") -> Crops:
    """What `write_crops` wrote."""
    place = run / "samples" / name
    lr, bicubic, hr = (Crop(place / f"{stem}.webp") for stem in ("lr", "bicubic", "hr"))
    return Crops(name, lr, bicubic, hr, {int(path.stem[5:]): Crop(path) for path in place.glob("step-*.webp")})


def at(step: int, hr: Pixels = HR) -> Pixels:
    """What a run makes of HR at a step."""
    return blurred(hr, 1 - step / 2500)


def write(run: Path, hr: Pixels = HR, *, name: str = "photo", steps: Sequence[int] = (10, 20), scale: int = 4) -> Crops:
    """Write the crops of an image into a run."""
    write_crops(run, name, hr, {step: at(step, hr) for step in steps}, scale=scale)
    return crops_of(run, name)


def decode(asset: str) -> Pixels:
    """The picture of a data URL."""
    head, _, data = asset.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def embed_all(
    images: list[PairedImage], num_runs: int, *, max_bytes: int = ANYTHING
) -> tuple[Embedded, list[list[str]]]:
    problems: list[list[str]] = [[] for _ in range(num_runs)]
    return embed(images, best=[{10}] * num_runs, problems=problems, max_bytes=max_bytes), problems


def test_the_same_picture_of_two_runs_is_one_image_and_stands_once_on_the_page(tmp_path: Path) -> None:
    runs = [[write(tmp_path / "a", steps=[10, 400])], [write(tmp_path / "b", steps=[10, 800])]]
    problems: list[list[str]] = [[], []]
    images = pair(runs, problems)
    assert [(image.name, image.height, image.width) for image in images] == [("photo", 96, 96)]
    assert {run: list(steps) for run, steps in images[0].runs.items()} == {0: [10, 400], 1: [10, 800]}
    found, _ = embed_all(images, 2)
    # HR, bicubic and LR once, SR of steps 10 (equal in both), 400 and 800.
    assert len(found.assets) == 6
    assert np.array_equal(decode(found.assets[found.images[0]["hr"]]), HR)
    (_, first), (_, last) = found.crops[0][0]
    assert found.crops[1][0][0] == [10, first]
    assert np.array_equal(decode(found.assets[last]), at(400))
    assert problems == [[], []]
    assert found.notes == []


def test_two_pictures_under_one_name_are_two_images(tmp_path: Path) -> None:
    images = pair([[write(tmp_path / "a")], [write(tmp_path / "b", smooth_noise(96, 96, seed=2))]], [[], []])
    assert [image.name for image in images] == ["photo", "photo (2)"]
    assert [list(image.runs) for image in images] == [[0], [1]]


def test_one_picture_of_two_scales_is_two_images_as_their_lr_is_another(tmp_path: Path) -> None:
    images = pair([[write(tmp_path / "a")], [write(tmp_path / "b", scale=2)]], [[], []])
    assert [list(image.runs) for image in images] == [[0], [1]]


def test_rounding_on_another_machine_changes_nothing(tmp_path: Path) -> None:
    runs = [write(tmp_path / "a"), write(tmp_path / "b")]
    lr = runs[1].lr
    assert lr
    pixels = lr.pixels().copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(lr.path, lossless=True)
    assert [list(image.runs) for image in pair([[runs[0]], [runs[1]]], [[], []])] == [[0, 1]]


def test_what_cannot_be_read_is_left_out_by_name(tmp_path: Path) -> None:
    runs = [write(tmp_path / name) for name in ("sound", "hr", "sr", "none", "small")]
    (tmp_path / "hr/samples/photo/hr.webp").write_bytes(b"RIFF")
    (tmp_path / "sr/samples/photo/step-000020.webp").write_bytes(b"")
    Image.fromarray(HR[:48]).save(tmp_path / "small/samples/photo/step-000020.webp", lossless=True)
    runs[3] = runs[3]._replace(hr=None)
    problems: list[list[str]] = [[] for _ in runs]
    found = embed(pair([[run] for run in runs], problems), best=[()] * 5, problems=problems, max_bytes=ANYTHING)
    assert problems[0] == []
    assert "crops of photo: left out (" in problems[1][0]
    assert "crop of photo at step 20: left out (" in problems[2][0]
    assert problems[3] == ["crops of photo: left out, as their HR is missing"]
    assert problems[4] == ["crop of photo at step 20: left out (it is 96x48, its HR 96x96)"]
    assert {run: [step for step, _ in crops[0]] for run, crops in found.crops.items()} == {
        0: [10, 20],
        2: [10],
        4: [10],
    }
    assert all(len(lines) <= 1 for lines in problems)


def test_without_room_older_steps_are_lossy_then_fewer_and_the_page_says_so(tmp_path: Path) -> None:
    steps = [10, *range(100, 2000, 100)]
    images = pair([[write(tmp_path / "a", steps=steps)]], [[]])
    whole, _ = embed_all(images, 1)
    everything = sum(map(len, whole.assets))
    sizes = []
    for part in (0.9, 0.5, 0.2):
        found, problems = embed_all(images, 1, max_bytes=int(everything * part))
        assert sum(map(len, found.assets)) <= everything * part
        kept = [step for step, _ in found.crops[0][0]]
        assert {10, 1900} <= set(kept)
        assert np.array_equal(decode(found.assets[found.crops[0][0][-1][1]]), at(1900))
        assert np.array_equal(decode(found.assets[found.images[0]["hr"]]), HR)
        assert "lossy WebP" in found.notes[-1]
        assert problems == [[]]
        sizes.append(len(kept))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < len(steps)
    assert found.notes[0] == f"To keep the page small, crops of {sizes[-1]} of {len(steps)} steps are here."
    nothing, _ = embed_all(images, 1, max_bytes=10)
    assert (nothing.assets, nothing.images) == ([], [])
    assert nothing.notes == ["The crops are too many for one page: compare fewer runs to see them."]


def test_runs_with_other_intervals_keep_their_share_of_steps(tmp_path: Path) -> None:
    runs = [[write(tmp_path / "a", steps=range(100, 2100, 100))], [write(tmp_path / "b", steps=range(70, 2100, 70))]]
    images = pair(runs, [[], []])
    everything = sum(map(len, embed_all(images, 2)[0].assets))
    found, _ = embed_all(images, 2, max_bytes=everything // 8)
    counts = [len(found.crops[run][0]) for run in (0, 1)]
    assert min(counts) >= 3
    assert max(counts) - min(counts) <= 2


def test_the_crops_of_an_old_run_are_cut_out_of_its_contact_sheets(tmp_path: Path) -> None:
    def sheet(name: str, amount: float, *, columns: int = 4) -> None:
        rows = []
        for hr in (HR, smooth_noise(96, 96, seed=2)):
            small = np.asarray(Image.fromarray(hr).resize((24, 24), Image.Resampling.BICUBIC))
            lr = small.repeat(4, axis=0).repeat(4, axis=1)
            rows.append([lr, blurred(hr, 1), *[blurred(hr, 0.9)] * (columns - 4), blurred(hr, amount), hr])
        contact_sheet([""] * columns, rows).save(tmp_path / "old" / name)

    (tmp_path / "old").mkdir()
    sheet("step-000010.png", 0.5)
    sheet("final.png", 0.25, columns=5)
    (tmp_path / "old/step-000020.png").write_bytes(b"\x89PNG")
    Image.fromarray(HR).save(tmp_path / "old/step-000030.png")
    problems: list[str] = []
    old = crops_of_sheets(tmp_path / "old", scale=4, last_step=40, problems=problems)
    assert len(problems) == 2
    assert problems[1] == "samples/step-000030.png: left out (it is not laid out as a contact sheet)"
    images = pair([old, [write(tmp_path / "new")]], [[], []])
    photo, other = images
    assert [photo.name, other.name] == ["photo", "unnamed"]
    assert list(photo.runs[0]) == [10, 40]
    assert np.array_equal(photo.runs[0][40].pixels(), blurred(HR, 0.25))
    assert np.array_equal(photo.hr.pixels(), HR)
    found, _ = embed_all(images, 2)
    assert decode(found.assets[found.images[0]["lr"]]).shape == (24, 24, 3)


@pytest.mark.parametrize("scale", [1, 3])
def test_lr_of_a_sheet_is_whole_where_the_scale_is_not_its_own(tmp_path: Path, scale: int) -> None:
    side = 96 if scale == 1 else 95
    contact_sheet([""] * 4, [[HR[:side, :side]] * 4]).save(tmp_path / "step-000001.png")
    (crops,) = crops_of_sheets(tmp_path, scale=scale, last_step=None, problems=[])
    assert crops.lr
    assert crops.lr.pixels().shape == (side, side, 3)
