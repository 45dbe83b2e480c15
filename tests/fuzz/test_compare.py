"""A damaged run never keeps the others from the page, and whatever stands in its records is JSON on it."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

import pytest

from srgan_dist.reports.compare import compare
from srgan_dist.utils import strict_json
from tests.conftest import smooth_noise
from tests.fuzz.harness import fuzz, mutate, mutate_json, report
from tests.reports.runs import blurred, rows, write_crops, write_run


@cache
def records() -> dict[str, bytes]:
    """The files of a sound run, by their place in its folder."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        quality = {"psnr_y": 28.0, "ssim_y": 0.8, "perceptual": 0.4}
        result = {"bicubic": quality, "final": quality, "steps": 600, "images": 9600, "seconds": 9, "parameters": 5}
        write_run(folder, metrics=rows(12), result=result)
        hr = smooth_noise(32, 32)
        write_crops(folder, "photo", hr, {300: blurred(hr, 0.5), 600: blurred(hr, 0.2)})
        (folder / "val.jsonl").write_text('{"step": 500, "image": "photo", "psnr_y": 28.0, "ssim_y": 0.8}\n')
        (folder / "stopped.json").write_text('{"signal": "SIGTERM", "step": 600}')
        (folder / "run.json").write_text('{"name": "run", "parent": null}')
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def damaged_run(rng: random.Random, folder: Path) -> None:
    """Beside a sound run stands one of which some files are damaged."""
    for name in ("sound", "damaged"):
        for place, content in records().items():
            path = folder / name / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for place in rng.sample(sorted(records()), rng.randint(1, 3)):
        path = folder / "damaged" / place
        lines = path.read_bytes().splitlines(keepends=True) if path.suffix in (".json", ".jsonl") else []
        if lines and rng.random() < 0.5:
            at = rng.randrange(len(lines)) if path.suffix == ".jsonl" else 0
            value = mutate_json(json.loads(lines[at]), rng)
            lines[at] = json.dumps(value).encode() + b"\n"
            path.write_bytes(b"".join(lines))
        elif rng.random() < 0.1:
            path.unlink()
        else:
            path.write_bytes(mutate(path.read_bytes(), rng))
    payload = compare([folder])
    assert json.loads(strict_json.dumps(payload)) == payload
    runs = {run["name"]: run for run in payload["runs"]}
    assert runs["sound"]["final"]["val/psnr_y"]
    (crops,) = runs["sound"]["crops"].values()
    assert [step for step, _ in crops] == [300, 600]
    for run in runs.values():
        assert all("\n" not in line for line in (*run["problems"], run["note"] or "", run["name"]))
        lengths = {len(run["series"][axis]) for axis in ("step", "images", "hours")}
        assert len(lengths | {len(column) for column in run["series"]["values"].values()}) == 1


@pytest.mark.slow
def test_damaged_runs_are_compared() -> None:
    findings = fuzz(damaged_run, cases=150)
    assert not findings, report(findings)
