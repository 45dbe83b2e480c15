"""A two-node Slurm for the tests of this folder, and jobs on it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, environment, metrics, options

STEPS = 48
SMALL: dict[str, Any] = {
    "loss.perceptual.weight": 0,
    "train.steps": STEPS,
    "checkpoint.every": 10,
}


def until(what: str, true: Callable[[], Any], seconds: float = 180) -> Any:
    """Poll until the result is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := true()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)
    return answer


class Cluster:
    """Two nodes, node1 and node2, with partitions ``low`` (preemptible) and ``high``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.script = folder, ROOT / "tests/slurm/cluster.sh"
        programs = Path(sys.executable).parent
        self.environment = environment(
            CLUSTER_DIR=str(folder / "slurm"),
            CLUSTER_ID=str(os.getpid() % 250),
            SLURM_CONF=str(folder / "slurm/slurm.conf"),
            PATH=f"{programs}:{os.environ['PATH']}",
            PYTHONPATH=str(ROOT),
            HOME=str(folder),  # no key of W&B's
        )
        (folder / "launch").symlink_to(ROOT / "launch")

    def call(self, *command: str | Path) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    @property
    def address(self) -> str:
        """This machine's address, as the nodes reach it; the cluster must have been started."""
        found = re.search(r"^SlurmctldHost=.*\((.+)\)$", (self.folder / "slurm/slurm.conf").read_text(), re.MULTILINE)
        assert found
        return found[1]

    def control(self, *arguments: str) -> None:
        self.call(self.script, *arguments)

    def submit(self, *command: str | Path) -> str:
        """Hand a job to Slurm; returns its number."""
        return self.call("sbatch", "--parsable", *command).strip()

    def adapted(self, name: str, *, environment: str = "", **settings: str) -> Path:
        """The shipped script with settings of its head changed, and a line in its environment, as a site would."""
        text = (ROOT / "launch/slurm/train.sbatch").read_text()
        text = text.replace("environment() {\n", f"environment() {{\n  {environment}\n", 1)
        for setting, value in settings.items():
            text, changed = re.subn(rf"(?m)^{setting}=\S+", f"{setting}={value}", text)
            assert changed == 1
        path = self.folder / f"{name}.sbatch"
        path.write_text(text)
        return path


@dataclass
class Job:
    """A job of launch/slurm/train.sbatch and its run."""

    cluster: Cluster
    number: str
    run: Path

    @property
    def output(self) -> str:
        """The job's output."""
        path = Path(self.fact("StdOut"))
        return path.read_text() if path.exists() else ""

    def fact(self, name: str) -> str:
        words = self.cluster.call("scontrol", "show", "job", self.number).split()
        return next(word for word in words if word.startswith(f"{name}=")).removeprefix(f"{name}=")

    @property
    def state(self) -> str:
        return self.fact("JobState")

    @property
    def restarts(self) -> int:
        return int(self.fact("Restarts"))

    def log(self, rank: int) -> str:
        """What a rank has written since the job started last."""
        paths = list(self.cluster.folder.glob(f"logs/*-{self.number}/{self.restarts}/rank-{rank}.log"))
        return paths[0].read_text() if paths else ""

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or will."""
        return self.state in ("RUNNING", "PENDING", "COMPLETING")

    def trains(self, steps: int = 3) -> int:
        """Let this start do some steps, and stand still; returns the last step."""
        self.let_continue()

        def done() -> bool:
            assert self.is_alive, self.output
            return self.state == "RUNNING" and self.log(0).count(" left\n") >= steps

        until(f"steps of job {self.number}", done)
        self.stand_still()
        return int(metrics(self.run)[-1]["step"])

    def saves(self, step: int) -> int:
        """Let it train until a checkpoint of this step or a later one is there; returns the newest one's."""
        self.let_continue()

        def newest() -> int:
            assert self.is_alive, self.output
            steps = [int(path.name.removeprefix("step-")) for path in (self.run / "checkpoints").glob("step-*")]
            return max(steps) if steps and max(steps) >= step else 0

        until(f"a checkpoint of job {self.number}", newest)
        self.stand_still()
        return newest()

    def processes(self) -> list[psutil.Process]:
        """The ranks that run, wherever, by rank."""
        mine, found = self.fact("JobId"), {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # gone, or not ours to look at
                words, variables = process.cmdline(), process.environ()
                if variables.get("SLURM_JOB_ID") == mine and "python" in words[0] and "train" in words:
                    found[int(variables["RANK"])] = process
        return [found[rank] for rank in sorted(found)]

    def stand_still(self) -> None:
        """A step that takes long: no test depends on how fast the others are."""
        for process in self.processes():
            process.send_signal(signal.SIGSTOP)

    def let_continue(self) -> None:
        for process in self.processes():
            process.send_signal(signal.SIGCONT)

    def warned(self) -> None:
        """Wait until Slurm has warned this start."""
        until("USR1", lambda: "USR1" in self.output.split("saved; requeues")[-1])

    def requeued(self, times: int) -> None:
        """Wait until it was requeued for the n-th time."""
        until(f"restart {times}", lambda: self.restarts == times and self.state == "PENDING")

    def ended(self, state: str = "COMPLETED") -> None:
        until(f"the end of job {self.number}", lambda: not self.is_alive)
        assert self.state == state, self.output

    @property
    def stopped_at(self) -> int:
        """The step of the marker, checked against the checkpoint."""
        step = int(json.loads((self.run / "stopped.json").read_text())["step"])
        assert (self.run / f"checkpoints/step-{step:06d}/manifest.json").is_file()
        return step

    def resumes_after(self, step: int) -> None:
        """Wait until a new start resumes there, and let it stand still."""
        until("the start", lambda: self.state == "RUNNING" and " micro-batches x " in self.log(0))
        self.stand_still()
        assert f"resumes after step {step} of {STEPS}" in self.log(0)


Submit = Callable[..., Job]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, once for all tests."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare") if not shutil.which(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (tests/slurm/cluster.sh install)")
    if os.getuid() != 0:
        pytest.skip("starting a Slurm needs root")
    allowed = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False
    )
    if allowed.returncode:
        pytest.skip(f"no permission for namespaces: {allowed.stderr.decode().strip()}")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.control("start")
        yield cluster
    finally:
        cluster.control("stop")


@pytest.fixture(scope="session")
def submit(cluster: Cluster, shards: Path) -> Submit:
    """Start a run of 2 nodes x 2 ranks by the shipped script: ``submit("name", "--sbatch-option", setting="x")``."""

    def start(name: str, *arguments: str, tracker: str = "none", shards: Path = shards, **settings: str) -> Job:
        run = cluster.folder / "runs" / name
        script = cluster.adapted(name, **({"doctor": "no"} | settings))
        run_options = options(SMALL | {"run.dir": run, "data.train": shards, "tracker.name": tracker})
        number = cluster.submit("--cpus-per-gpu=1", *arguments, script, *run_options)
        return Job(cluster, number, run)

    return start
