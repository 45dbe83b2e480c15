"""What a run leaves for people and for comparisons: val.jsonl, sample crops, run.json, train.log."""

from __future__ import annotations

import json
import logging
import re
import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from srgan_dist.errors import UserError
from srgan_dist.evaluation.test_sets import ImagePair
from srgan_dist.evaluation.validator import Validator
from srgan_dist.imaging.pixels import image_tensor
from srgan_dist.imaging.resize import downscale
from srgan_dist.tracking import run_info
from srgan_dist.tracking.run_info import read_run_info, write_run_info
from srgan_dist.tracking.run_logger import RunLogger
from srgan_dist.tracking.train_log import train_log
from srgan_dist.utils import provenance
from srgan_dist.utils.provenance import CodeState, code_state
from srgan_dist.utils.times import utc
from tests.conftest import Train, metrics, photo

UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def logger_of(folder: Path) -> RunLogger:
    alone: Any = SimpleNamespace(is_main_process=True, trackers=[])
    return RunLogger(folder=folder, accelerator=alone, num_steps=9)


def crops(*seeds: int) -> dict[str, Image.Image]:
    return {f"image {seed}": Image.fromarray(photo(24, 24, seed)) for seed in seeds}


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_crops_are_kept_without_loss_and_references_once(tmp_path: Path) -> None:
    logger, sheet = logger_of(tmp_path), Image.fromarray(photo(40, 90))
    references = {name: {"lr": crop, "bicubic": crop, "hr": crop} for name, crop in crops(1, 2).items()}
    for step in (5, 10):
        logger.references(references)
        logger.samples(step, sheet, crops(1, 2))
    names = {str(path.relative_to(tmp_path / "samples")) for path in tmp_path.rglob("*.*")}
    kinds = ("lr", "bicubic", "hr", "step-000005", "step-000010")
    assert names == {"step-000005.png", "step-000010.png"} | {
        f"image {n}/{kind}.webp" for n in (1, 2) for kind in kinds
    }
    assert (pixels(tmp_path / "samples/image 2/step-000010.webp") == photo(24, 24, 2)).all()
    written = (tmp_path / "samples/image 1/hr.webp").stat()
    (tmp_path / "samples/image 2/hr.webp").unlink()
    again = logger_of(tmp_path)  # the run was started again, and a picture is gone
    again.references(references)
    assert (tmp_path / "samples/image 1/hr.webp").stat() == written
    assert (pixels(tmp_path / "samples/image 2/hr.webp") == photo(24, 24, 2)).all()


def pair(name: str, seed: int) -> ImagePair:
    hr = photo(48, 48, seed)
    return ImagePair(name, image_tensor(downscale(hr, 4)), image_tensor(hr))


def test_each_images_quality_is_the_same_on_two_ranks_and_named_apart() -> None:
    """Of two folders that both have an a.png, in the order of the images."""
    images = [pair(name, seed) for seed, name in enumerate(("a", "b", "a", "c:d", "step-000001.png"))]
    gathered: list[Any] = []

    def validator(rank: int, world_size: int, gather: Any) -> Validator:
        runtime: Any = SimpleNamespace(
            rank=rank,
            world_size=world_size,
            device=torch.device("cpu"),
            memory_format=torch.contiguous_format,
            all_gather_object=gather,
            images_of_any_size=nullcontext,
        )
        return Validator(images, scale=4, runtime=runtime, measures={})

    alone = validator(0, 1, lambda value: [value])
    rows = alone.measure_each(alone.bicubic)
    assert [row["image"] for row in rows] == ["a", "b", "a-2", "c_d", "step-000001_png"]
    assert len({row["psnr_y"] for row in rows}) == 5
    first = validator(0, 2, lambda value: [gathered.append(value), [value, value]][1])  # type: ignore[func-returns-value]
    first.measure_each(first.bicubic)
    second = validator(1, 2, lambda value: [*gathered, value])
    assert second.measure_each(second.bicubic) == rows


def test_a_run_writes_its_records(train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "run", changes={"log.images_every": 4})
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "run/val.jsonl").read_text().splitlines()]
    assert [(row["step"], row["image"]) for row in rows] == [(step, f"v{n}") for step in (2, 6) for n in range(3)]
    last = metrics(tmp_path / "run")[-1]
    for name in ("psnr_y", "ssim_y", "perceptual", "grid"):
        assert last[f"val/{name}"] == pytest.approx(sum(row[name] for row in rows[3:]) / 3, rel=1e-12)
    assert all(re.fullmatch(UTC, line["time"]) for line in metrics(tmp_path / "run"))
    hours = [line["hours"] for line in metrics(tmp_path / "run")]
    assert hours == sorted(hours)
    assert 0 < hours[0] < 1
    assert {path.name for path in (tmp_path / "run/samples/v1").iterdir()} == {
        f"{name}.webp" for name in ("lr", "bicubic", "hr", "step-000004", "step-000006")
    }
    lines = (tmp_path / "run/train.log").read_text().splitlines()
    assert all(re.match(rf"{UTC} INFO \S", line) for line in lines)
    assert "1 rank, 1 threads each" in lines[0]  # logged before the folder was there
    assert any("step 6/6" in line for line in lines)
    first = json.loads((tmp_path / "run/run.json").read_text())
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert first["started"] == result["started"] < result["finished"]
    assert (first["name"], result["name"], first["ranks"], first["seed"]) == ("run", "run", 1, 0)
    assert f"--run.dir={tmp_path / 'run'}" in first["command"]
    assert first["data_digest"]
    assert first["parent"] is None
    done = train(tmp_path / "run", changes={"log.images_every": 4})
    assert done.code == 0, done.err
    second = json.loads((tmp_path / "run/run.json").read_text())
    assert [start["step"] for start in second["starts"]] == [0, 6]
    assert {**second, "starts": first["starts"]} == first | {"starts": first["starts"]}
    again = json.loads((tmp_path / "run/result.json").read_text())
    assert (again["finished"], again["best"]) == (result["finished"], result["best"])
    assert len((tmp_path / "run/train.log").read_text().splitlines()) > len(lines)


def write_info(folder: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"step": 0, "is_resumed": False, "devices": ["CPU"], "seed": 1, "data_digest": "d"}
    write_run_info(folder, **(values | {"parent": None} | changes))
    found = read_run_info(folder)
    assert found
    return found


def test_the_command_is_recorded_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [
        "python",
        "train.py",
        "--data.train=https://me:hunter2@host/x?sig=abcdef",
        "--data.train=pipe:get abcdef",
    ]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: command)
    write_info(tmp_path)
    text = (tmp_path / "run.json").read_text()
    assert "hunter2" not in text
    assert "abcdef" not in text
    assert "https://***@host/x?***" in text


def test_run_json_that_is_damaged_or_of_no_version_is_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run.json").write_text('{"name": "r')
    info = write_info(tmp_path, step=7, is_resumed=True, parent=tmp_path / "parent")
    assert "run.json: cannot be read (no JSON); it is written anew" in caplog.text
    assert info["started"] is None
    assert info["parent"] == str(tmp_path / "parent")
    assert [start["step"] for start in info["starts"]] == [7]


def test_without_git_or_a_repository_of_its_own_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the package is installed below somebody else's repository."""
    package = tmp_path / "project/site-packages/srgan_dist"
    (package / "utils").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(provenance, "__file__", str(package / "utils/provenance.py"))
    assert code_state() == CodeState(None, None)
    git = ["git", "-C", str(tmp_path / "project"), "-c", "user.name=x", "-c", "user.email=x"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert code_state() == CodeState(None, None)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    commit, dirty = code_state()
    assert commit
    assert len(commit) == 40
    assert dirty is False
    (package / "new.py").touch()
    assert code_state() == CodeState(commit, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state() == CodeState(None, None)
    assert write_info(tmp_path / "project")["commit"] is None
    assert run_info.read_run_info(tmp_path) is None


def test_lines_that_do_not_fit_on_the_disk_come_when_they_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, folder = logging.getLogger("srgan_dist"), tmp_path / "run"
    log.setLevel("INFO")
    folder.mkdir()
    with pytest.raises(UserError, match="stopped"), train_log(is_main=True) as lines:  # noqa: PT012
        log.info("before the folder\nis known")
        lines.begin(folder)
        folder.rename(tmp_path / "away")
        log.info("lost?")
        log.info("and this?")
        (tmp_path / "away").rename(folder)
        raise UserError("stopped: https://me:hunter2@host/")
    text = (folder / "train.log").read_text()
    said = [line.partition("Z ")[2] for line in text.splitlines()]
    assert said[:3] == [r"INFO before the folder\nis known", "INFO lost?", said[2]]
    assert "hunter2" not in text
    assert said[-2:] == ["INFO and this?", "ERROR ended: stopped: https://***@host/"]
    assert caplog.text.count("train.log: cannot be written (No such file or directory)") == 1


def test_something_else_called_train_log_is_the_users_to_move(tmp_path: Path) -> None:
    (tmp_path / "train.log").mkdir()
    with (
        train_log(is_main=True) as lines,
        pytest.raises(UserError, match=r"train\.log: cannot be written \(is a folder"),
    ):
        lines.begin(tmp_path)


def test_times_are_in_utc() -> None:
    assert utc(1796000000.1239) == "2026-11-30T00:53:20.123Z"
    assert re.fullmatch(UTC, utc())
