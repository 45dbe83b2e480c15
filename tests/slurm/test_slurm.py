"""The shipped batch scripts on a real Slurm of two nodes with two CPU ranks each."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import metrics
from tests.slurm.conftest import STEPS, Job, Submit, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def peaceful(submit: Submit) -> Job:
    """A run that nothing happens to, started with the others."""
    return submit("peaceful", "--partition=high", doctor="yes")


@pytest.fixture
def undisturbed(peaceful: Job) -> Path:
    """The folder of that run, when it has ended."""
    peaceful.ended()
    return peaceful.run


@pytest.fixture(scope="module")
def disturbed(submit: Submit, peaceful: Job) -> Job:
    """A run that each test below disturbs; each leaves it standing still in a new start."""
    assert peaceful.number
    return submit("disturbed", max_requeues="5")


def test_a_signal_before_the_trainer_can_catch_it_is_not_lost(disturbed: Job) -> None:
    until("the ranks", lambda: len(disturbed.processes()) == 4)
    assert not disturbed.run.exists()
    disturbed.cluster.call("scancel", "--batch", "--signal=USR1", disturbed.number)
    until("the run's folder", disturbed.run.exists)
    assert "USR1" in disturbed.output
    disturbed.stand_still()
    time.sleep(3)  # time for the next try
    disturbed.go_on()
    disturbed.requeued(1)
    disturbed.goes_on_after(disturbed.stopped_at)


def test_preempted(disturbed: Job) -> None:
    step, restarts = disturbed.trains(), disturbed.restarts
    urgent = disturbed.cluster.submit("--partition=high", "--nodes=2", "--exclusive", "--wrap=true")
    disturbed.warned()
    assert disturbed.state == "RUNNING"
    disturbed.go_on()
    disturbed.requeued(restarts + 1)
    assert disturbed.stopped_at in (step, step + 1, step + 2)
    Job(disturbed.cluster, urgent, disturbed.run).ended()
    disturbed.goes_on_after(disturbed.stopped_at)


def test_requeued_by_hand(disturbed: Job) -> None:
    step, restarts = disturbed.trains(), disturbed.restarts
    disturbed.cluster.call("scontrol", "requeue", disturbed.number)
    disturbed.requeued(restarts + 1)
    assert disturbed.stopped_at in (step, step + 1, step + 2)
    disturbed.goes_on_after(disturbed.stopped_at)


def test_a_node_dies(disturbed: Job, submit: Submit, undisturbed: Path) -> None:
    elastic = submit("elastic", "--nodes=1-2")
    saved, restarts = disturbed.saves(disturbed.trains() + 1), disturbed.restarts
    elastic_saved = elastic.saves(10)
    assert "CPU, 4 ranks" in elastic.log(0)
    disturbed.cluster.control("kill-node", "node2")
    for job in (elastic, disturbed):
        job.go_on()
    elastic.requeued(1)
    disturbed.requeued(restarts + 1)
    elastic.goes_on_after(elastic_saved)
    assert "CPU, 2 ranks" in elastic.log(0)
    disturbed.cluster.control("boot-node", "node2")
    elastic.go_on()
    disturbed.goes_on_after(saved)
    elastic.ended()
    assert digests(elastic.run) == digests(undisturbed)


def test_time_is_up(disturbed: Job) -> None:
    step, restarts = disturbed.trains(), disturbed.restarts
    disturbed.cluster.call("scontrol", "update", f"JobId={disturbed.number}", "TimeLimit=1")
    disturbed.warned()
    disturbed.go_on()
    disturbed.requeued(restarts + 1)
    assert disturbed.stopped_at in (step, step + 1, step + 2)
    disturbed.cluster.call("scontrol", "update", f"JobId={disturbed.number}", "TimeLimit=10")
    disturbed.goes_on_after(disturbed.stopped_at)


def test_requeues_are_bounded(disturbed: Job) -> None:
    assert disturbed.restarts == 5
    disturbed.trains()
    disturbed.cluster.call("scancel", "--batch", "--signal=USR1", disturbed.number)
    disturbed.warned()
    disturbed.go_on()
    disturbed.ended("FAILED")
    assert disturbed.fact("ExitCode") == "75:0"
    assert disturbed.stopped_at
    assert "saved; this job has queued again 5 times already" in disturbed.output


def digests(run: Path) -> list[str]:
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["data/digest"] for line in lines]


def test_after_all_that_the_run_is_the_undisturbed_one(disturbed: Job, submit: Submit, undisturbed: Path) -> None:
    last = submit("disturbed")
    last.ended()
    assert digests(last.run) == digests(undisturbed)
    for key in ("g/total", "grad_norm/g", "learning_rate"):
        assert [line[key] for line in metrics(last.run)] == [line[key] for line in metrics(undisturbed)]
    names = [f"checkpoints/step-{STEPS:06d}/{name}" for name in ("generator", "discriminator", "ema")]
    for name in [*names, "weights/generator"]:
        ours, theirs = (load_file(run / f"{name}.safetensors") for run in (last.run, undisturbed))
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours), name
    segments = list(last.run.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(segments) == disturbed.restarts + 2
    assert len({path.name for path in segments}) == 1
    assert not (last.run / "stopped.json").exists()


def test_the_screen_shows_one_rank_as_plain_lines(peaceful: Job) -> None:
    peaceful.ended()
    assert re.search(r"ranks +│ ok +│", peaceful.output)  # the doctor's table
    assert "CPU, 4 ranks, 1 threads each" in peaceful.output
    assert len(list(peaceful.cluster.folder.glob(f"logs/*-{peaceful.number}/0/rank-?.log"))) == 4
    assert len(re.findall(r"step \d+/\d+ .* left\n", peaceful.output)) == STEPS
    assert "\r" not in peaceful.output
    assert "\x1b" not in peaceful.output


def test_cancelled_stays_cancelled(submit: Submit) -> None:
    job = submit("cancelled")
    job.trains()
    job.cluster.call("scancel", job.number)
    job.ended("CANCELLED")
    assert metrics(job.run)[-1]["step"] == job.stopped_at
    assert "queues again" not in job.output
    time.sleep(3)
    assert job.state == "CANCELLED"
    assert job.restarts == 0


def test_the_first_that_dies_is_named_last(submit: Submit) -> None:
    job = submit("killed")
    job.trains()
    job.processes()[3].kill()
    job.go_on()
    job.ended("FAILED")
    assert "rank 3 on node2 failed first, exit code 137: killed by signal 9 (" in job.output.splitlines()[-1]
    assert "Traceback" not in job.output
