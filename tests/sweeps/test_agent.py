"""A sweep of W&B's: its own agent, `accelerate launch`, two ranks a trial, and a trial that a scheduler stops."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.conftest import ROOT, TINY, environment, metrics
from tests.tracking.wandb_server import WandbServer

pytestmark = pytest.mark.slow

STEPS = 30
BIN = Path(sys.executable).parent


def launcher_of(trial: str, agent: psutil.Process) -> psutil.Process | None:
    """The `accelerate launch` of a trial, below its agent."""
    for process in agent.children(recursive=True):
        try:
            words, variables = process.cmdline(), process.environ()
        except psutil.Error:  # gone meanwhile
            continue
        if "launch" in words and variables.get("WANDB_RUN_ID") == trial and "RANK" not in variables:
            return process
    return None


def test_four_trials_of_two_ranks_one_of_them_stopped(tmp_path: Path, shards: Path, validation: Path) -> None:
    changes: dict[str, Any] = {"train.steps": STEPS, "train.pretrain_steps": 0, "loss.perceptual.weight": 0}
    changes |= {
        "data.train": shards,
        "data.validation": validation,
        "run.dir": tmp_path / "sweep",
        "validate.every": 10,
    }
    changes |= {"tracker.name": "wandb", "log.images_every": STEPS, "checkpoint.every": STEPS}
    settings = [f"--{key}={value}" for key, value in (TINY | changes).items() if key != "train.g_per_d"]
    launch = [str(BIN / "accelerate"), "launch", "--config_file", "launch/accelerate/cpu_two_ranks.yaml"]
    sweep = {
        "program": "train.py",
        "method": "grid",
        "metric": {"name": "val/psnr_y", "goal": "maximize"},
        "parameters": {"train.g_per_d": {"values": [1, 2, 3, 4]}},
        "command": ["${env}", *launch, "--main_process_port=0", "${program}", *settings, "${args}"],
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    folders = [tmp_path / f"sweep/sweep0trial{number}" for number in range(4)]
    with WandbServer() as server:
        env = environment(HOME=str(tmp_path), **server.environment)
        create = [str(BIN / "wandb"), "sweep", "--project", "p", str(tmp_path / "sweep.yaml")]
        created = subprocess.run(create, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=True)
        assert "wandb agent lab/p/sweep0" in created.stderr
        command = [str(BIN / "wandb"), "agent", "lab/p/sweep0"]
        with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as agent:
            deadline = time.monotonic() + 200
            while not ((folders[1] / "metrics.jsonl").exists() and len(metrics(folders[1])) >= 3):
                assert time.monotonic() < deadline
                assert agent.poll() is None
                time.sleep(0.05)
            launcher = launcher_of("sweep0trial1", psutil.Process(agent.pid))
            assert launcher
            launcher.send_signal(signal.SIGTERM)
            err = agent.communicate(timeout=280)[1]
            assert agent.returncode == 0, err
    commands = list(dict.fromkeys(server.sweeps.sweeps["sweep0"].commands))
    assert commands == [
        ("run", "sweep0trial0"),
        ("run", "sweep0trial1"),
        ("resume", "sweep0trial1"),
        ("run", "sweep0trial2"),
        ("run", "sweep0trial3"),
    ]
    assert sorted(server.runs) == [folder.name for folder in folders]
    assert {run.exit_code for run in server.runs.values()} == {0}
    for number, folder in enumerate(folders):
        assert json.loads((folder / "result.json").read_text())["steps"] == STEPS
        assert json.loads((folder / "run.json").read_text())["ranks"] == 2
        assert [line["step"] for line in metrics(folder)] == list(range(1, STEPS + 1))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["train"]["g_per_d"] == number + 1
    assert len(json.loads((folders[1] / "run.json").read_text())["starts"]) == 2
