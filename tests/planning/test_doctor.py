"""`doctor` finds what would make a run fail, and reports ok otherwise."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Finished, call, launch, options, run


def ask(shards: Path, folder: Path, *extra: str, ranks: int = 1) -> Finished:
    overrides = options({"run.dir": folder, "data.train": shards})
    arguments = ["doctor", "--json", str(folder.with_suffix(".json")), *overrides, *extra]
    if ranks == 1:
        return call(*arguments)
    script = folder.with_suffix(".py")
    script.write_text("import sys\nfrom srgan_dist.cli.commands import main\nsys.exit(main())\n")
    return launch(ranks, script, *arguments, PYTHONPATH=str(ROOT))


def answers(folder: Path) -> dict[str, dict[str, Any]]:
    return {answer["name"]: answer for answer in json.loads(folder.with_suffix(".json").read_text())}


def test_a_valid_run_is_ok(shards: Path, tmp_path: Path) -> None:
    done = ask(shards, tmp_path / "run")
    assert done.code == 0, done.err
    found = answers(tmp_path / "run")
    assert {name for name, answer in found.items() if answer["verdict"] == "fail"} == set()
    assert {
        "versions",
        "devices",
        "batch",
        "memory",
        "shards",
        "files",
        "pixels",
        "run.dir",
        "space",
        "perceptual",
    } <= set(found)
    assert found["batch"]["text"] == "4 patches = 4 x 1 micro-batches x 1 ranks"
    assert not (tmp_path / "run").exists()


def test_too_little_memory_fails(shards: Path, tmp_path: Path) -> None:
    done = ask(shards, tmp_path / "run", "--data.batch_size=100000", "--data.micro_batch=50000")
    assert done.code == 1
    memory = answers(tmp_path / "run")["memory"]
    assert memory["verdict"] == "fail"
    assert re.fullmatch(
        r"[\d.]+ GiB for 50000 patches at a time, as predicted, [\d.]+ GiB free: srgan-dist plan prints what fits",
        memory["text"],
    )


def test_commands_are_run_only_where_that_is_asked_for(shards: Path, tmp_path: Path) -> None:
    tar = next(shards.glob("*.tar"))
    sources = [str(shards), f"pipe:touch {tmp_path}/ran; cat {tar}"]
    overrides = [f"--data.train={json.dumps(sources)}", f"--data.cache_dir={tmp_path}/cache"]
    done = ask(shards, tmp_path / "run", *overrides)
    assert done.code == 0, done.err
    found = answers(tmp_path / "run")
    assert found["commands"] == {
        "name": "commands",
        "verdict": "warn",
        "text": "1 command is not run (pipe:...), nor what is written checked: --run-commands does",
    }
    assert found["pixels"]["verdict"] == "ok"
    assert not (tmp_path / "ran").exists()
    done = ask(shards, tmp_path / "run", "--run-commands", *overrides)
    assert done.code == 0, done.err
    assert "commands" not in answers(tmp_path / "run")
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
def test_on_two_ranks_the_doctor_measures_the_all_reduce(shards: Path, tmp_path: Path) -> None:
    done = ask(shards, tmp_path / "run", ranks=2)
    assert done.code == 0, done.err
    assert answers(tmp_path / "run")["ranks"]["text"].startswith("2: all-reduce at ")
    assert answers(tmp_path / "run")["batch"]["text"] == "4 patches = 2 x 1 micro-batches x 2 ranks"


def test_a_damaged_shard_fails(shards: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(shards, damaged)
    tar = next(damaged.glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[5000] ^= 0xFF
    tar.write_bytes(data)
    done = ask(damaged, tmp_path / "run", "--data.degradation.kind=stored")
    assert done.code == 1
    assert "this run would fail (pixels)" in done.err
    assert tar.name in answers(tmp_path / "run")["pixels"]["text"]


@pytest.mark.parametrize(
    ("extra", "name", "text"),
    [
        (["--data.train=/nowhere"], "shards", "/nowhere"),
        (["--data.micro_batch=4", "--data.batch_size=4", "--run.ranks=2"], None, "2 ranks were asked for"),
        (["--loss.perceptual.network=vgg19"], "perceptual", "srgan-dist fetch vgg19"),
        (["--loss.perceptual.network=vgg16", "--loss.perceptual.weights=hed"], "perceptual", "srgan-dist fetch hed"),
        (["--loss.additional={kind: dists}"], "dists", "srgan-dist fetch vgg16"),
        (["--loss.additional={kind: lpips, weights: hed}"], "lpips", "srgan-dist fetch hed"),
        (
            ["--data.validation=VALIDATION", "--validate.measures=lpips,dists_hed"],
            "measures",
            "the weights for lpips, dists_hed are not here: srgan-dist fetch hed, srgan-dist fetch vgg16",
        ),
        (
            ["--data.validation=VALIDATION", "--validate.measures=auto", "--checkpoint.best=val/lpips"],
            "measures",
            "validate.measures=auto cannot measure here",
        ),
        (["--generator.channels=4096", "--checkpoint.keep=100000"], "space", "make room"),
        (["--tracker.name=wandb"], None, None),
    ],
)
def test_what_would_fail_is_named(
    shards: Path,
    validation: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extra: list[str],
    name: str | None,
    text: str,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for key in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(key, raising=False)
    extra = [argument.replace("VALIDATION", str(validation)) for argument in extra]
    done = ask(shards, tmp_path / "run", *extra)
    if name:
        assert done.code == 1
        assert answers(tmp_path / "run")[name]["verdict"] == "fail"
        assert text in answers(tmp_path / "run")[name]["text"]
    elif text:
        assert done.code == 2
        assert text in done.err
    else:  # a run without a key is one that is logged offline
        assert done.code == 0
        assert answers(tmp_path / "run")["tracker"]["verdict"] == "warn"


def test_the_doctor_needs_no_configuration(tmp_path: Path) -> None:
    assert call("evaluate", "a", "b", "--nonsense").code == 2
    done = run(sys.executable, "-m", "srgan_dist", "doctor", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.code == 0, done.err
    assert "versions" in done.out
