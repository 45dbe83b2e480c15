"""The comparison of runs from their folders: sound, running, broken, old, none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srgan_dist.errors import UserError
from srgan_dist.reports.compare import compare
from srgan_dist.utils import strict_json
from tests.conftest import ROOT, smooth_noise
from tests.reports.runs import blurred, rows, write_crops, write_run, write_study

HR = smooth_noise(64, 64, seed=1)
QUALITY = {"psnr_y": 28.0, "ssim_y": 0.8, "perceptual": 0.4}


def finished(steps: int, **quality: float) -> dict[str, Any]:
    """result.json of a run."""
    final = QUALITY | quality
    return {"bicubic": QUALITY, "final": final, "steps": steps, "images": 16 * steps, "seconds": 9, "parameters": 1234}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Six runs: n = 1 and 2, three seeds."""
    write_study(tmp_path / "study", [HR, smooth_noise(64, 64, seed=2)], num_runs=6, num_rows=40, num_steps=2)
    return tmp_path / "study"


def test_a_study_becomes_runs_groups_curves_and_crops(study: Path) -> None:
    payload = compare([study])
    assert json.loads(strict_json.dumps(payload)) == payload
    names = [run["name"] for run in payload["runs"]]
    assert names == [f"n{ratio}-rate0.0001-seed{seed}" for ratio in (1, 2) for seed in (0, 1, 2)]
    assert payload["differing"] == ["train.g_per_d", "run.seed"]
    assert [run["config"] for run in payload["runs"]] == [
        {"train.g_per_d": ratio, "run.seed": seed} for ratio in (1, 2) for seed in (0, 1, 2)
    ]
    assert [run["n"] for run in payload["runs"]] == [1, 1, 1, 2, 2, 2]
    assert [run["seed"] for run in payload["runs"]] == [0, 1, 2, 0, 1, 2]
    assert [group["name"] for group in payload["groups"]] == ["g_per_d=1", "g_per_d=2"]
    assert [run["group"] for run in payload["runs"]] == [0, 0, 0, 1, 1, 1]
    finals = [run["final"]["val/psnr_y"] for run in payload["runs"][:3]]
    of_group = payload["groups"][0]["final"]["val/psnr_y"]
    assert of_group == {
        "mean": pytest.approx(np.mean(finals)),
        "sd": pytest.approx(np.std(finals, ddof=1)),
        "count": 3,
    }
    assert payload["baseline"] == {"val/psnr_y": 27.5, "val/ssim_y": 0.78, "val/perceptual": 0.45}
    first = payload["runs"][0]
    assert (first["state"], first["step"], first["images"], first["parameters"]) == (
        "finished",
        2000,
        32_000,
        1_500_000,
    )
    assert first["memory_gib"] == 3.5
    assert first["best"]["val/perceptual"]["step"] == 2000
    assert set(first["series"]["values"]) == {curve["key"] for curve in payload["curves"]}
    assert [image["name"] for image in payload["images"]] == ["photo0", "photo1"]
    assert [[step for step, _ in first["crops"][image]] for image in ("0", "1")] == [[1000, 2000]] * 2
    assert len(payload["assets"]) == 2 * 3 + 6 * 2 * 2  # HR, bicubic and LR of each image once
    assert payload["notes"] == []


def test_runs_that_are_going_on_broken_or_none_are_named_and_do_not_keep_the_others_from_the_page(study: Path) -> None:
    going_on = write_run(study / "going-on", metrics=rows(20))
    with (going_on / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1050, "g/to')
    write_run(study / "only-configured")
    (study / "garbage").mkdir()
    (study / "garbage/config.yaml").write_bytes(b"\xff\x00")
    (study / "garbage/metrics.jsonl").write_text("[1]\nnull\n{}\n")
    (study.parent / "empty").mkdir()
    (study.parent / "file").touch()
    arguments = [study, going_on, study.parent / "empty", study.parent / "file", study.parent / "typo"]
    payload = compare(arguments)
    assert json.loads(strict_json.dumps(payload)) == payload
    runs = {run["name"]: run for run in payload["runs"]}
    assert len(payload["runs"]) == len(runs) == 9
    assert runs["going-on"]["step"] == 1000
    assert runs["going-on"]["final"]["val/psnr_y"] is not None
    assert (runs["garbage"]["state"], runs["garbage"]["n"]) == ("broken", None)
    assert runs["garbage"]["note"] not in runs["garbage"]["problems"]
    assert [metric["key"] for metric in payload["metrics"]] == ["val/psnr_y", "val/ssim_y", "val/perceptual"]
    assert runs["only-configured"]["final"]["val/psnr_y"] is None
    assert payload["differing"] == [key for key in payload["differing"] if key in runs["going-on"]["config"]]
    assert "no crops" in runs["going-on"]["problems"]
    assert payload["notes"] == [
        f"{study.parent}/empty: no run in it",
        f"{study.parent}/file: not a folder",
        f"{study.parent}/typo: there is no such folder",
    ]


def test_nothing_usable_at_all_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("[")
    with pytest.raises(UserError, match="nothing to compare") as error:
        compare([broken, tmp_path / "typo"])
    assert "typo: there is no such folder" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_same_run_given_in_several_ways_is_one(study: Path) -> None:
    run = study / "n1-rate0.0001-seed0"
    (study.parent / "link").symlink_to(run)
    assert len(compare([run, study.parent / "link", study / ".." / "study"])["runs"]) == 6


def test_the_mean_of_a_group_is_of_those_that_got_furthest(tmp_path: Path) -> None:
    for seed, num_rows in enumerate((40, 40, 20)):
        config = {"run": {"dir": tmp_path / str(seed), "seed": seed}}
        write_run(tmp_path / str(seed), config=config, metrics=rows(num_rows, seed=seed))
    payload = compare([tmp_path])
    finals = [run["final"]["val/psnr_y"] for run in payload["runs"]]
    assert payload["groups"][0]["final"]["val/psnr_y"]["count"] == 2
    assert payload["groups"][0]["final"]["val/psnr_y"]["mean"] == pytest.approx(np.mean(finals[:2]))


def test_runs_that_were_validated_on_other_images_are_said_not_to_compare(tmp_path: Path) -> None:
    for name, psnr in (("a", 28.0), ("b", 26.0)):
        result = finished(2000) | {"bicubic": QUALITY | {"psnr_y": psnr}}
        write_run(tmp_path / name, metrics=rows(40), result=result)
    payload = compare([tmp_path])
    assert payload["baseline"] == {"val/ssim_y": 0.8, "val/perceptual": 0.4}
    assert payload["notes"] == [
        "Bicubic has another PSNR-Y in b than in a: other images were validated, or another network "
        "measured, so that the runs do not compare in this."
    ]


def test_runs_that_are_going_on_with_other_images_are_said_not_to_compare(tmp_path: Path) -> None:
    for name, images in (("a", 2), ("b", 1)):
        run = write_run(tmp_path / name, metrics=rows(40))
        lines = [{"step": 500, "image": f"image{at}", "psnr_y": 28.0, "ssim_y": 0.8} for at in range(images)]
        (run / "val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert compare([tmp_path])["notes"] == [
        "Runs were validated on different images (a on 2, b on 1), so that their metrics do not compare."
    ]


def test_a_run_that_lacks_the_crops_of_an_image_is_named(tmp_path: Path) -> None:
    for name, images in (("a", ("one", "two")), ("b", ("one",))):
        run = write_run(tmp_path / name, metrics=rows(40))
        for at, image in enumerate(images):
            hr = smooth_noise(64, 64, seed=at)
            write_crops(run, image, hr, {2000: blurred(hr, 0.5)})
    (run / "samples/three").mkdir()
    (run / "samples/three/step-002000.webp").write_bytes(b"")
    (tmp_path / "a/samples/two/step-002000.webp").write_bytes(b"")
    first, second = compare([tmp_path])["runs"]
    assert second["problems"] == ["crops of three: left out, as their HR is missing", "no crops of two"]
    assert first["problems"][0].startswith("crop of two at step 2000: left out (samples/two/step-002000.webp: is empty")
    assert len(first["problems"]) == 1


def test_an_image_that_few_runs_have_is_noted_once(tmp_path: Path) -> None:
    for at, name in enumerate("abcd"):
        run = write_run(tmp_path / name, metrics=rows(40))
        for image in ("one", "two")[: 2 if name == "a" else 1]:
            hr = smooth_noise(64, 64, seed=len(image) + (image == "two"))
            write_crops(run, image, hr, {2000: blurred(hr, 0.5 + at / 10)})
    payload = compare([tmp_path])
    assert payload["notes"] == ["Crops of two are only in a."]
    assert [run["problems"] for run in payload["runs"]] == [[], [], [], []]


def test_numbers_that_json_lacks_and_names_that_a_terminal_should_not_see_come_through_as_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "</script><b>\x1b[31m", result=finished(3))
    lines = '{"step": 1, "g/total": NaN, "val/psnr_y": Infinity}\n{"step": 2, "g/total": 1e999, "d/loss": 1}\n'
    lines += f'{{"step": 3, "val/psnr_y": {10**400}, "hours": {10**400}, "images": {10**400}}}\n'
    (run / "metrics.jsonl").write_text(lines)
    payload = compare([run])
    assert json.loads(strict_json.dumps(payload)) == payload
    (run_of_page,) = payload["runs"]
    assert run_of_page["name"] == "script><b>\\x1b[31m"
    assert run_of_page["folder"].endswith("</script><b>\\x1b[31m")
    assert run_of_page["series"]["values"] == {"d/loss": [1.0]}


def test_alerts_are_noted(tmp_path: Path) -> None:
    alerts = [{"step": 50, "alert": "D wins"}, {"step": 90, "alert": "D wins again"}]
    config: dict[str, dict[str, Any]] = {"run": {"dir": tmp_path / "run"}, "train": {"steps": 100}}
    run = write_run(tmp_path / "run", config=config, metrics=[*rows(2), *alerts], result=finished(100))
    assert compare([run])["runs"][0]["note"] == "2 alerts, the last at step 90: D wins again"


def test_a_page_has_no_more_than_its_bytes_whatever_the_runs_have(study: Path) -> None:
    small = compare([study], max_bytes=800_000)  # of which the page itself takes 500,000
    assert len(strict_json.dumps(small)) < 300_000 < len(strict_json.dumps(compare([study])))
    assert small["notes"]


def test_a_run_of_an_earlier_version_has_its_crops_from_the_contact_sheets() -> None:
    payload = compare([ROOT / "tests/fixtures/run-v0.1/run"])
    (run,) = payload["runs"]
    assert run["hours"] is None or run["hours"] > 0
    assert payload["images"]
    assert run["crops"]
    with Image.open(next((ROOT / "tests/fixtures/run-v0.1/run/samples").glob("step-*.png"))) as sheet:
        assert payload["images"][0]["width"] < sheet.width
