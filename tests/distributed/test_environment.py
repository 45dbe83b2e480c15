"""The environment changes nothing of what is computed: what it asks otherwise is ignored and said, or refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
from accelerate.utils import DynamoBackend

from srgan_dist.distributed import environment
from srgan_dist.distributed.environment import Threads, configuration_alone, cpu_threads, ignored_settings
from srgan_dist.distributed.launch import launch_option, launcher_environment
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import UserError
from tests.conftest import ROOT, Finished, metrics, options, run

ASKS = {
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
    "ACCELERATE_DYNAMO_MODE": "max-autotune",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_DOWNCAST_BF16": "1",
    "ACCELERATE_FP8_BACKEND": "TE",
    "ACCELERATE_TORCH_DEVICE": "meta",
}
WHAT_ACCELERATE_ALWAYS_SETS = {
    "ACCELERATE_USE_CPU": "False",
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "False",
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ACCELERATE_", "OMP_", "TORCHELASTIC")):
            monkeypatch.delenv(name)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """As if torchrun had started this process; the environment that torchrun itself was started in."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before: dict[str, str] = {}
    monkeypatch.setattr(psutil.Process, "environ", lambda _: before)
    return before


def test_accelerate_is_built_from_the_configuration_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ASKS.items():
        monkeypatch.setenv(name, value)
    runtime = Runtime(threads=1)
    accelerator = runtime.accelerator
    assert accelerator.mixed_precision == "no"
    assert accelerator.state.dynamo_plugin.backend == DynamoBackend.NO
    assert accelerator.gradient_accumulation_steps == 1
    assert runtime.device.type != "meta"
    assert {name: os.environ[name] for name in ASKS} == ASKS
    assert len(runtime.ignored_settings) == len(ASKS)
    assert "ACCELERATE_DYNAMO_BACKEND=INDUCTOR is ignored: train.compile decides" in runtime.ignored_settings
    assert "ACCELERATE_MIXED_PRECISION=bf16 is ignored: train.precision decides" in runtime.ignored_settings


@pytest.mark.parametrize("asked", [{}, WHAT_ACCELERATE_ALWAYS_SETS, {"ACCELERATE_MIXED_PRECISION": "bf16"}])
def test_nothing_is_said_of_what_agrees(monkeypatch: pytest.MonkeyPatch, asked: dict[str, str]) -> None:
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    assert ignored_settings(precision="bf16", compile=False) == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_FSDP", "FSDP"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "parallelism"),
    ],
)
def test_another_way_of_training_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, what: str) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(UserError, match=f"^{name} asks for {what}.*launch/accelerate"), configuration_alone():
        pass


@pytest.mark.parametrize(
    ("name", "value", "compile", "said"),
    [
        ("NVIDIA_TF32_OVERRIDE", "0", False, "changes how float32 is rounded"),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1", False, "changes how float32 is rounded"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16", False, "changes how float32 is rounded"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT", False, None),
        ("TORCH_COMPILE_DISABLE", "1", True, "turns train.compile off"),
        ("TORCH_COMPILE_DISABLE", "1", False, None),
        ("TORCH_COMPILE_DISABLE", "0", True, None),
    ],
)
def test_what_cannot_be_ignored_is_said(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, compile: bool, said: str | None
) -> None:
    monkeypatch.setenv(name, value)
    lines = ignored_settings(precision="fp32", compile=compile)
    assert len(lines) == bool(said)
    assert all(line.startswith(f"{name}={value} {said}") for line in lines)


def test_threads_are_as_configured_then_as_the_environment_says_then_a_part_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = len(os.sched_getaffinity(0))
    assert cpu_threads(None, local_ranks=1) == Threads(cores, "cores / ranks of the node")
    assert cpu_threads(None, local_ranks=1000 * cores).number == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert cpu_threads(None, local_ranks=1) == Threads(7, "OMP_NUM_THREADS")
    assert cpu_threads(3, local_ranks=1) == Threads(3, "train.threads")
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert cpu_threads(None, local_ranks=2).number == 4


@pytest.mark.parametrize("value", ["0", "-1", "many", "2.5", ","])
def test_a_number_of_threads_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(UserError, match=f"^OMP_NUM_THREADS is '{value}', allowed are whole numbers from 1"):
        cpu_threads(None, local_ranks=1)
    assert cpu_threads(3, local_ranks=1).number == 3


def test_what_a_launcher_sets_by_itself_is_not_what_a_person_set(launched: dict[str, str]) -> None:
    assert cpu_threads(None, local_ranks=1).source == "cores / ranks of the node"
    launched["OMP_NUM_THREADS"] = "5"
    assert cpu_threads(None, local_ranks=1) == Threads(5, "OMP_NUM_THREADS")


def test_a_shell_between_a_launcher_and_its_rank_is_passed_over(
    launched: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = iter([dict(os.environ), launched])
    monkeypatch.setattr(psutil.Process, "environ", lambda _: next(outer))
    assert cpu_threads(None, local_ranks=1).source == "cores / ranks of the node"


def test_options_of_accelerate_are_read_in_both_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["python", "/bin/accelerate", "launch", "--num-cpu-threads-per-process=3"]
    words += ["--gradient_accumulation_steps", "4", "train.py"]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: words)
    monkeypatch.setattr(psutil.Process, "environ", lambda _: {})
    assert launch_option("num_cpu_threads_per_process") == "3"
    assert launch_option("num_processes") is None
    assert cpu_threads(None, local_ranks=1).number == 3
    assert ignored_settings(precision="fp32", compile=False) == [
        "--gradient_accumulation_steps 4 is ignored: data.micro_batch decides"
    ]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: ["python", "-m", "accelerate.commands.launch"])
    assert launcher_environment() == {}
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: ["bash"])
    assert launcher_environment() is None


def test_everything_that_is_refused_is_accelerates() -> None:
    assert all(name.startswith("ACCELERATE_USE_") for name in environment._OTHER_TRAINING)


@pytest.mark.slow
def test_a_run_with_r1_is_the_same_whatever_accelerate_is_asked_for(shards: Path, tmp_path: Path) -> None:
    def start(name: str, *asked: str) -> Finished:
        changes = {"run.dir": tmp_path / name, "data.train": shards, "loss.adversarial.r1_weight": 1}
        launch: list[str | Path] = [
            Path(sys.executable).with_name("accelerate"),
            "launch",
            "--num_processes=1",
            "--num_machines=1",
        ]
        done = run(*launch, *asked, "train.py", *options(changes), PYTHONPATH=str(ROOT))
        assert done.code == 0, done.err
        return done

    start("plain", "--mixed_precision=no", "--dynamo_backend=no")
    asked = start("asked", "--mixed_precision=bf16", "--dynamo_backend=inductor", "--gradient_accumulation_steps=4")
    assert asked.err.count("is ignored") == 3
    kept = [{"d/loss", "g/total", "data/digest"} & line.keys() for line in metrics(tmp_path / "plain")]
    assert kept[-1] == {"d/loss", "g/total", "data/digest"}
    for plain, same, names in zip(metrics(tmp_path / "plain"), metrics(tmp_path / "asked"), kept, strict=True):
        assert {name: plain[name] for name in names} == {name: same[name] for name in names}
