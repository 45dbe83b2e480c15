"""srgan-dist from Python: the names of the package, runs in a thread, in a notebook, one after the other."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import srgan_dist
from srgan_dist.config.models import RRDBConfig
from srgan_dist.tracking.console import default_logging
from tests.conftest import Finished, environment, metrics, run

SMALL = """
from srgan_dist import Config, train
from srgan_dist.errors import Stopped

def config(folder, **changes):
    return Config(
        run={"dir": folder},
        data={"train": SHARDS, "patch_size": 48, "batch_size": 4},
        generator={"channels": 8, "blocks": 1, "norm": "none", "upsampler": "pixelshuffledirect", "end_kernel": 3},
        discriminator={"channels": 4, "norm": "spectral"},
        loss={"perceptual": {"weight": 0}},
        train={"steps": 6, "threads": 1} | changes,
        log={"every": 2},
        tracker={"name": "none"},
    )
"""
STEPS = [f"step {step}/6" for step in (2, 4, 6)]


def program(code: str, shards: Path, folder: Path) -> list[str]:
    """The command that runs a program of the reader's own, with `config` to make a small run of."""
    file = folder / "program.py"
    file.write_text(f"SHARDS = {str(shards)!r}\n{SMALL}\n{code}")
    return [sys.executable, str(file)]


def run_program(code: str, shards: Path, folder: Path) -> Finished:
    done = run(*program(code, shards, folder), cwd=folder)
    assert done.code == 0, done.err
    return done


def logged_steps(text: str) -> list[str]:
    return re.findall(r"step \d+/\d+", text)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, srgan_dist\nfrom srgan_dist import Config, load_config\nassert 'torch' not in sys.modules"
    done = run(sys.executable, "-c", code)
    assert done.code == 0, done.err


@pytest.mark.parametrize("name", srgan_dist.__all__)
def test_every_name_is_there_and_explains_itself(name: str) -> None:
    assert name in dir(srgan_dist)
    assert getattr(srgan_dist, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Trainer"):
        _ = srgan_dist.Trainer  # type: ignore[attr-defined]


def test_a_configuration_is_made_of_dictionaries() -> None:
    config = srgan_dist.Config(
        generator={"name": "rrdb", "blocks": 2}, train={"steps": 5}, validate={"every": 2}, data={"train": "shards"}
    )
    assert config.generator == RRDBConfig(blocks=2)
    assert (config.train.steps, config.validation.every, config.data.train) == (5, 2, ("shards",))
    assert config == srgan_dist.load_config(
        None,
        [
            "--generator.name=rrdb",
            "--generator.blocks=2",
            "--train.steps=5",
            "--validate.every=2",
            "--data.train=shards",
        ],
    )


def test_a_mistake_is_an_exception_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(srgan_dist.UserError, match=r"nowhere\.yaml: cannot read") as caught:
        srgan_dist.load_config(tmp_path / "nowhere.yaml")
    assert "\n" not in str(caught.value)
    with pytest.raises(srgan_dist.UserError, match="does not exist"):
        srgan_dist.pack(tmp_path / "nowhere", tmp_path / "shards")
    with pytest.raises(srgan_dist.UserError, match="no such weights file"):
        srgan_dist.evaluate(tmp_path / "nowhere.safetensors", tmp_path)


def test_a_notebook_packs_trains_evaluates_and_upscales(images: Path, validation: Path, tmp_path: Path) -> None:
    code = """
import srgan_dist
from PIL import Image
from srgan_dist import SRGenerator, evaluate, pack

print(pack(IMAGES, SHARDS, tile=96).num_images)
result = train(config("run"))
print(result["steps"])
WEIGHTS = "run/weights/generator.safetensors"
seen = []
print([sorted(one) for one in evaluate(WEIGHTS, VALIDATION)])
[one] = evaluate(SRGenerator.from_pretrained(WEIGHTS), [VALIDATION], on_image=seen.append)
print(len(one["images"]), seen)
print(SRGenerator.from_pretrained(WEIGHTS).upscale(Image.new("RGB", (20, 10))).size)
"""
    names = f"IMAGES, VALIDATION = {str(images)!r}, {str(validation)!r}\n"
    done = run_program(names + code, tmp_path / "shards", tmp_path)
    assert done.out.splitlines() == [
        "6",
        "6",
        "[['bicubic', 'gain', 'identical', 'images', 'intervals', 'model', 'name']]",
        "3 ['v0', 'v1', 'v2']",
        "(80, 40)",
    ]
    assert logged_steps(done.err) == STEPS


def test_a_run_in_a_thread_trains_logs_and_outlives_the_main_thread(shards: Path, tmp_path: Path) -> None:
    code = """
import threading
threading.Thread(target=lambda: print(train(config("run"))["steps"])).start()
"""
    done = run_program(code, shards, tmp_path)
    assert done.out.split() == ["6"]
    assert logged_steps(done.err) == STEPS
    assert "Traceback" not in done.err
    assert (tmp_path / "run/weights/generator.safetensors").is_file()


def test_an_interrupt_in_the_main_thread_leaves_the_run_to_its_event(shards: Path, tmp_path: Path) -> None:
    # Not Thread.join: before Python 3.13 an interrupted one takes its thread for finished.
    code = """
import threading
from concurrent.futures import ThreadPoolExecutor

stop = threading.Event()
run = ThreadPoolExecutor(1).submit(train, config("run", steps=100_000), stop=stop)
try:
    run.result()
except KeyboardInterrupt:
    print("interrupted", run.running())
    stop.set()
    print(run.exception())
"""
    process = interrupted(code, shards, tmp_path)
    out, err = process.communicate(timeout=60)
    first, second = out.splitlines()
    assert first == "interrupted True", err
    assert "with everything saved" in second
    assert json.loads((tmp_path / "run/stopped.json").read_text())["signal"] == "stop"
    steps = int(second.split("after step ")[1].split()[0]) + 2
    done = run_program(f"train(config('run', steps={steps}))", shards, tmp_path)
    assert logged_steps(done.err)[-1] == f"step {steps}/{steps}"


def test_an_interrupt_of_a_notebook_saves_and_leaves_its_signals_as_they_were(shards: Path, tmp_path: Path) -> None:
    code = """
import signal
try:
    train(config("run", steps=100_000))
except Stopped as reason:
    print(reason)
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)
"""
    process = interrupted(code, shards, tmp_path)
    out, err = process.communicate(timeout=60)
    reason, *handlers = out.splitlines()
    assert "with everything saved" in reason, err
    assert handlers == ["True", "True"]


def interrupted(code: str, shards: Path, folder: Path) -> subprocess.Popen[str]:
    """A program that gets SIGINT, as a notebook's kernel does, once its run has begun to train."""
    # A shell's background job, and so perhaps these tests, ignores SIGINT; a notebook's kernel does not.
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    process = subprocess.Popen(
        program(code, shards, folder),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    for line in process.stderr:
        if logged_steps(line):
            break
    os.kill(process.pid, signal.SIGINT)
    return process


def test_runs_of_other_precisions_follow_each_other(shards: Path, tmp_path: Path) -> None:
    code = """
for precision in ("fp32", "bf16", "fp32"):
    train(config(precision, precision=precision, steps=2))
"""
    done = run_program(code, shards, tmp_path)
    assert re.findall("(fp32|bf16)$", done.err, re.MULTILINE) == ["fp32", "bf16", "fp32"]
    assert [line["step"] for line in metrics(tmp_path / "bf16")] == [2]


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The project's logger in a program that has configured no logging; pytest's own handlers are out of the way."""
    log = logging.getLogger("srgan_dist")
    for logger in (log, logging.getLogger()):
        monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(log, "level", logging.NOTSET)
    monkeypatch.setattr(log, "propagate", True)
    log.manager._clear_cache()  # type: ignore[attr-defined]
    return log


def test_a_run_shows_its_log_where_nobody_has_decided_and_leaves_no_trace(undecided: logging.Logger) -> None:
    with default_logging(is_main=True):
        assert len(undecided.handlers) == 1
        assert undecided.isEnabledFor(logging.INFO)
    assert (undecided.handlers, undecided.level, undecided.propagate) == ([], logging.NOTSET, True)


@pytest.mark.parametrize("decision", ["level", "handler", "root logger"])
def test_a_program_that_has_decided_on_the_log_keeps_it(undecided: logging.Logger, decision: str) -> None:
    root = logging.getLogger()
    level = root.level
    handler = logging.NullHandler()
    try:
        match decision:
            case "level":
                undecided.setLevel(logging.ERROR)
            case "handler":
                undecided.addHandler(handler)
            case _:
                root.setLevel(logging.INFO)
                root.addHandler(handler)
        before = list(undecided.handlers), undecided.level
        with default_logging(is_main=True):
            assert (undecided.handlers, undecided.level, undecided.propagate) == (*before, True)
    finally:
        root.setLevel(level)
