"""What launch/ ships for accelerate and Kubernetes, started on this machine."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from srgan_dist.distributed.launch import trial_folder
from tests.conftest import ROOT, Train, environment, metrics, options, run

PIXELS: dict[str, Any] = {"train.steps": 3, "train.pretrain_steps": 3}
PROGRAMS = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def together(*commands: tuple[list[str], dict[str, str]]) -> list[str]:
    """Run commands side by side; returns what each wrote on stderr."""
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment(**extra), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        for command, extra in commands
    ]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), errors
    return errors


@pytest.fixture
def arguments(shards: Path, tmp_path: Path) -> list[str]:
    return options(PIXELS | {"run.dir": tmp_path / "run", "data.train": shards})


def test_one_gpu_is_one_rank(arguments: list[str], tmp_path: Path) -> None:
    config = ROOT / "launch/accelerate/one_gpu.yaml"
    done = run(PROGRAMS / "accelerate", "launch", "--config_file", config, "train.py", *arguments)
    assert done.code == 0, done.err
    assert ", 1 rank," in done.err
    assert len(metrics(tmp_path / "run")) == 3


@pytest.mark.slow
def test_many_nodes_find_each_other(arguments: list[str], tmp_path: Path) -> None:
    config, port = str(ROOT / "launch/accelerate/many_nodes.yaml"), str(free_port())
    launch = [str(PROGRAMS / "accelerate"), "launch", "--config_file", config, "--num_machines=2", "--num_processes=2"]
    launch += ["--main_process_ip=127.0.0.1", f"--main_process_port={port}"]
    errors = together(*(([*launch, f"--machine_rank={rank}", "train.py", *arguments], {}) for rank in range(2)))
    assert ", 2 ranks," in errors[0]
    assert len(metrics(tmp_path / "run")) == 3


@pytest.mark.slow
def test_torchrun_and_the_pods_of_the_kubernetes_job(arguments: list[str], train: Train, tmp_path: Path) -> None:
    job = yaml.safe_load((ROOT / "launch/kubernetes/pytorchjob.yaml").read_text())
    replicas = job["spec"]["pytorchReplicaSpecs"]
    pods = [
        replicas[kind]["template"]["spec"] for kind in ("Master", "Worker") for _ in range(replicas[kind]["replicas"])
    ]
    port = str(free_port())
    commands = []
    for rank, pod in enumerate(pods):
        (container,) = pod["containers"]
        limits = container["resources"]["limits"]
        assert int(job["spec"]["nprocPerNode"]) == limits["nvidia.com/gpu"]
        variables = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        assert int(variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"]
        # What the operator sets, but with one process a pod.
        variables |= {"PET_NNODES": str(len(pods)), "PET_NODE_RANK": str(rank), "PET_NPROC_PER_NODE": "1"}
        variables |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port, "RANK": str(rank), "WORLD_SIZE": "2"}
        words = [str(PROGRAMS / container["command"][0]), *container["command"][1:], *arguments]
        commands.append((words, variables))
        for word in container["args"]:
            assert re.match(r"--(config|run\.dir|data\.train)=", word)
    errors = together(*commands)
    assert ", 2 ranks," in errors[0]
    assert "step 3/3" not in errors[1]
    assert len(metrics(tmp_path / "run")) == 3
    assert train(tmp_path / "whole", changes=PIXELS).code == 0
    assert [line["data/digest"] for line in metrics(tmp_path / "run")] == [
        line["data/digest"] for line in metrics(tmp_path / "whole")
    ]


def test_a_trial_whose_folder_bears_its_name_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    monkeypatch.setenv("WANDB_RUN_ID", "t1")
    assert trial_folder(Path("runs/x")) == Path("runs/x")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert trial_folder(Path("runs/x")) == Path("runs/x/t1")
    assert trial_folder(Path("runs/x/t1")) == Path("runs/x/t1")
