"""The stand-in for W&B's server, as W&B's own client and agent use it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import environment
from tests.tracking.wandb_server import WandbServer

LOGS = """
import sys, wandb
for _ in range(2):  # the second run logs the same weights
    run = wandb.init(project="p", settings=wandb.Settings(silent=True))
    run.define_metric("val/perceptual", summary="min")
    for step, value in enumerate((3.0, 1.0, 2.0)):
        run.log({"val/perceptual": value}, step=step)
    run.log({"table": wandb.Table(columns=["image", "psnr_y"], data=[["a", 30.0], ["b", None]])})
    weights = wandb.Artifact("weights", type="model", metadata={"step": 3})
    weights.add_file(sys.argv[1], name="generator.safetensors", skip_cache=True)
    run.log_artifact(weights, aliases=["best"])
    run.alert("collapse", "D wins", level="WARN")
    run.mark_preempting()
    run.finish(exit_code=75)
"""

# Each trial: stopped by the server it says so, the first start of trial 1 is preempted, all else ends well.
TRIAL = """
import os, signal, sys, time, wandb
from pathlib import Path
starts = Path(sys.argv[1]) / os.environ["WANDB_RUN_ID"]
number = len(list(Path(sys.argv[1]).glob(starts.name + "-*")))
Path(f"{starts}-{number}").write_text(" ".join(sys.argv[2:]))
run = wandb.init(resume="allow", settings=wandb.Settings(silent=True))
run.log({"val/perceptual": 1.0})
if starts.name.endswith("trial1") and number == 0:
    run.mark_preempting()
    run.finish(exit_code=75)
    sys.exit(75)
if starts.name.endswith("trial2"):
    def stop(*_):
        run.finish(exit_code=1)
        sys.exit(1)
    signal.signal(signal.SIGTERM, stop)
    Path(f"{starts}-waits").touch()
    time.sleep(120)
run.finish()
"""


def start(command: list[str | Path], tmp_path: Path, server: WandbServer) -> subprocess.Popen[str]:
    env = environment(HOME=str(tmp_path), WANDB_AGENT_DISABLE_FLAPPING="true", **server.environment)
    return subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)


def test_tables_weights_alerts_and_preemption_arrive(tmp_path: Path) -> None:
    content = os.urandom(1000)
    (tmp_path / "weights").write_bytes(content)
    with WandbServer() as server:
        client = start([sys.executable, "-c", LOGS, tmp_path / "weights"], tmp_path, server)
        err = client.communicate(timeout=120)[1]
        assert client.returncode == 0, err
    assert not server.unanswered
    assert len(server.runs) == 2
    for run_id, run in server.runs.items():
        assert run.summary["val/perceptual"] == {"min": 1.0}
        assert run.alerts == [("collapse", "D wins", "WARN")]
        assert run.is_preempted
        assert run.history[-1]["table"]["nrows"] == 2
        assert run.history[-1]["table"]["path"] in run.files
        (table,) = server.artifacts.named(f"run-{run_id}-table")
        assert b'["b",null]' in table.files["table.table.json"].replace(b" ", b"")
    (weights,) = server.artifacts.named("weights")  # the second run sent the same
    assert weights.files == {"generator.safetensors": content}
    assert (weights.type, weights.metadata) == ("model", {"step": 3})
    assert set(weights.aliases) == {"latest", "best"}


@pytest.mark.slow
def test_an_agent_runs_resumes_and_stops_trials(tmp_path: Path) -> None:
    bin_folder = Path(sys.executable).parent
    (tmp_path / "trial.py").write_text(TRIAL)
    command = ["${env}", sys.executable, "${program}", str(tmp_path / "starts"), "${args}"]
    sweep = {"program": "trial.py", "method": "grid", "parameters": {"n": {"values": [1, 2, 4]}}, "command": command}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (tmp_path / "starts").mkdir()
    with WandbServer() as server:
        created = start([bin_folder / "wandb", "sweep", "--project", "p", "sweep.yaml"], tmp_path, server)
        assert "wandb agent lab/p/sweep0" in created.communicate(timeout=120)[1]
        agent = start([bin_folder / "wandb", "agent", "lab/p/sweep0"], tmp_path, server)
        wait_for((tmp_path / "starts/sweep0trial2-waits").exists, agent)
        with server.lock:
            server.runs["sweep0trial2"].is_stopped = True
        err = agent.communicate(timeout=120)[1]
        assert agent.returncode == 0, err
    assert not server.unanswered
    assert server.sweeps.sweeps["sweep0"].state == "FINISHED"
    assert list(dict.fromkeys(server.sweeps.sweeps["sweep0"].commands)) == [
        ("run", "sweep0trial0"),
        ("run", "sweep0trial1"),
        ("resume", "sweep0trial1"),
        ("run", "sweep0trial2"),
        ("stop", "sweep0trial2"),
    ]
    assert [run.exit_code for run in server.runs.values()] == [0, 0, 1]
    assert len(server.runs["sweep0trial1"].history) == 2
    starts = {path.name: path.read_text() for path in (tmp_path / "starts").iterdir()}
    assert starts["sweep0trial1-0"] == starts["sweep0trial1-1"] == "--n=2"
