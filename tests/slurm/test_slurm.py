"""The shipped batch scripts on a real Slurm of two nodes with two CPU ranks each."""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.conftest import ROOT, metrics, options
from tests.slurm.conftest import SMALL, STEPS, Cluster, Job, Submit, until
from tests.tracking.wandb_server import WandbServer

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def peaceful(submit: Submit) -> Job:
    """A run that nothing happens to, started with the others."""
    return submit("peaceful", "--partition=high")


@pytest.fixture
def undisturbed(peaceful: Job) -> Path:
    """The folder of that run, when it has ended."""
    peaceful.ended()
    return peaceful.run


@pytest.fixture(scope="module")
def disturbed(submit: Submit, peaceful: Job) -> Job:
    """A run that each test below disturbs; each leaves it standing still in a new start.

    In each start but the first, the second signal that it sends to itself is slow: 20 s, as from a busy controller.
    """
    folder = peaceful.cluster.folder / "slow"
    folder.mkdir()
    scancel = folder / "scancel"
    scancel.write_text(f"""#!/bin/sh
mark={folder}/$SLURM_RESTART_COUNT
[ -z "$SLURM_RESTART_COUNT" ] || [ ! -e "$mark" ] || sleep 20
touch "$mark"
exec {shutil.which("scancel")} "$@"
""")
    scancel.chmod(0o755)
    return submit("disturbed", tracker="wandb", max_requeues="5", environment=f"PATH={folder}:$PATH")


def test_a_signal_before_the_trainer_can_catch_it_is_not_lost(disturbed: Job) -> None:
    until("the ranks", lambda: len(disturbed.processes()) == 4)
    assert not disturbed.run.exists()
    disturbed.cluster.call("scancel", "--batch", "--signal=USR1", disturbed.number)
    until("the run's folder", disturbed.run.exists)
    assert "USR1" in disturbed.output
    disturbed.stand_still()
    time.sleep(3)  # time for the next try
    disturbed.let_continue()
    disturbed.requeued(1)
    disturbed.resumes_after(disturbed.stopped_at)


def test_a_preempted_job_saves_is_requeued_and_resumes(disturbed: Job) -> None:
    step, restarts = disturbed.trains(), disturbed.restarts
    urgent = disturbed.cluster.submit("--partition=high", "--nodes=2", "--exclusive", "--wrap=true")
    disturbed.warned()
    assert disturbed.state == "RUNNING"
    disturbed.let_continue()
    disturbed.requeued(restarts + 1)
    assert disturbed.stopped_at in (step, step + 1, step + 2)
    Job(disturbed.cluster, urgent, disturbed.run).ended()
    disturbed.resumes_after(disturbed.stopped_at)


def test_a_job_requeued_by_hand_resumes(disturbed: Job) -> None:
    step, restarts = disturbed.trains(), disturbed.restarts
    disturbed.cluster.call("scontrol", "requeue", disturbed.number)
    disturbed.requeued(restarts + 1)
    assert disturbed.stopped_at in (step, step + 1, step + 2)
    disturbed.resumes_after(disturbed.stopped_at)


def test_a_job_whose_node_dies_resumes(disturbed: Job, submit: Submit, undisturbed: Path) -> None:
    elastic = submit("elastic", "--nodes=1-2")
    elastic_saved = elastic.saves(10)
    saved, restarts = disturbed.saves(disturbed.trains() + 1), disturbed.restarts
    assert "CPU, 4 ranks" in elastic.log(0)
    disturbed.cluster.control("kill-node", "node2")
    for job in (elastic, disturbed):
        job.let_continue()
    elastic.requeued(1)
    disturbed.requeued(restarts + 1)
    elastic.resumes_after(elastic_saved)
    assert "CPU, 2 ranks" in elastic.log(0)
    disturbed.cluster.control("boot-node", "node2")
    elastic.let_continue()
    disturbed.resumes_after(saved)
    elastic.ended()
    assert digests(elastic.run) == digests(undisturbed)


def test_a_job_whose_time_is_up_saves_and_resumes(disturbed: Job) -> None:
    step, restarts = disturbed.trains(), disturbed.restarts
    # So that USR1 is due, 180 s before the end, and the end is not, on a busy machine either.
    hours, minutes, _ = map(int, disturbed.fact("RunTime").split(":"))
    limit = f"TimeLimit={60 * hours + minutes + 2}"
    disturbed.cluster.call("scontrol", "update", f"JobId={disturbed.number}", limit)
    disturbed.warned()
    disturbed.let_continue()
    disturbed.requeued(restarts + 1)
    assert disturbed.stopped_at in (step, step + 1, step + 2)
    disturbed.cluster.call("scontrol", "update", f"JobId={disturbed.number}", "TimeLimit=10")
    disturbed.resumes_after(disturbed.stopped_at)


def test_requeues_are_bounded(disturbed: Job) -> None:
    assert disturbed.restarts == 5
    disturbed.trains()
    disturbed.cluster.call("scancel", "--batch", "--signal=USR1", disturbed.number)
    disturbed.warned()
    disturbed.let_continue()
    disturbed.ended("FAILED")
    assert disturbed.fact("ExitCode") == "75:0"
    assert disturbed.stopped_at
    assert "saved; this job was requeued 5 times already" in disturbed.output


def digests(run: Path) -> list[str]:
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["data/digest"] for line in lines]


def test_after_all_that_the_run_is_the_undisturbed_one(disturbed: Job, submit: Submit, undisturbed: Path) -> None:
    last = submit("disturbed", tracker="wandb")
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
    assert "CPU, 4 ranks, 1 threads each" in peaceful.output
    assert len(list(peaceful.cluster.folder.glob(f"logs/*-{peaceful.number}/0/rank-?.log"))) == 4
    assert len(re.findall(r"step \d+/\d+ .* left\n", peaceful.output)) == STEPS
    assert "stop_lead: 180" in (peaceful.run / "config.yaml").read_text()
    assert "run.stop_lead" not in peaceful.output
    assert "\r" not in peaceful.output
    assert "\x1b" not in peaceful.output


def test_cancelled_stays_cancelled(submit: Submit) -> None:
    job = submit("cancelled", tracker="wandb")
    job.trains()
    job.cluster.call("scancel", job.number)
    job.ended("CANCELLED")
    assert metrics(job.run)[-1]["step"] == job.stopped_at
    assert "; requeues" not in job.output
    time.sleep(3)
    assert job.state == "CANCELLED"
    assert job.restarts == 0


def test_the_doctor_ends_a_job_that_would_fail(submit: Submit, cluster: Cluster) -> None:
    (cluster.folder / "damaged").mkdir()
    (cluster.folder / "damaged/train-000000.tar").write_bytes(b"no tar")
    job = submit("ill", "--nodes=1", "--gpus-per-node=1", doctor="yes", shards=cluster.folder / "damaged")
    job.ended("FAILED")
    rows = {words[0]: words[1] for words in map(str.split, job.output.splitlines()) if len(words) > 1}
    assert (rows["versions"], rows["shards"]) == ("ok", "fail")
    assert "doctor: this run would fail (" in job.output.splitlines()[-1]
    assert job.fact("ExitCode") == "1:0"
    assert job.restarts == 0
    assert not job.run.exists()


def test_ranks_that_do_not_start_are_started_again(submit: Submit) -> None:
    # What srun does where it cannot reach a node that came back a moment ago.
    unreachable = "[ ${SLURM_RESTART_COUNT:-0} -gt 0 ] || srun() { echo 'srun: error: Task launch failed'; return 1; }"
    job = submit("unreachable", environment=unreachable)
    job.ended()
    assert job.restarts == 1
    assert "4 of 4 ranks did not start; requeues" in job.output
    assert "starts from scratch" in job.output


def test_the_first_that_dies_is_named_last(submit: Submit) -> None:
    job = submit("killed")
    job.trains()
    job.processes()[3].kill()
    job.let_continue()
    job.ended("FAILED")
    assert "rank 3 on node2 failed first, exit code 137: killed by signal 9 (" in job.output.splitlines()[-1]
    assert "Traceback" not in job.output


def test_the_first_cause_is_reported_without_its_consequences(submit: Submit, cluster: Cluster) -> None:
    program = cluster.folder / "fails.py"
    program.write_text(f"#!{sys.executable}\n{FAILS}")
    program.chmod(0o755)
    job = submit("fails", program=f"({program})")
    job.ended("FAILED")
    log = cluster.folder / f"logs/srgan-{job.number}/0/rank-2.log"
    *lines, last = job.output.splitlines()
    assert "rank 2 on node2 failed first, exit code 1: ValueError: the first cause (" in last
    assert str(log.relative_to(cluster.folder)) in last
    assert "Traceback" in log.read_text()
    assert lines[0] == "rank 0 begins"  # on the screen at once
    assert not [line for line in lines if "Traceback" in line or "peer" in line]


FAILS = """
import os, sys, time

rank = int(os.environ["RANK"])
if rank == 0:
    print("rank 0 begins", flush=True)
if rank == 1:
    sys.exit(1)  # at once, with nothing to say
# Not in the order of their clocks: a node's may be late.
time.sleep(1 + (rank == 2) * 0.5)
if rank == 2:
    raise ValueError("the first cause")
sys.excepthook = lambda kind, error, trace: print(
    f"[rank{rank}]: Traceback (most recent call last):\\n[rank{rank}]:   File ...\\n"
    f"[rank{rank}]: RuntimeError: pair.cc:561 Connection closed by peer", file=sys.stderr
)
raise RuntimeError
"""


def test_a_sweep_is_one_run_a_line(cluster: Cluster, shards: Path) -> None:
    (cluster.folder / "ratios.txt").write_text("--train.g_per_d=1\n--train.g_per_d=3 '--tracker.tags=[\"a b\"]'\n")
    run_options = options(SMALL | {"data.train": shards, "train.steps": 60})  # takes seconds, long enough to be stopped
    overridden = [word for word in run_options if not word.startswith("--train.g_per_d")]
    arguments = ["--array=1-2", "--cpus-per-gpu=1", "launch/slurm/sweep.sbatch", "ratios.txt", *overridden]
    number = cluster.submit(*arguments)
    runs = [cluster.folder / f"runs/ratios/{line:03d}" for line in (1, 2)]
    first, second = (Job(cluster, f"{number}_{line}", run) for line, run in zip((1, 2), runs, strict=True))
    for job in (first, second):
        until("its rank", job.processes)
        job.stand_still()  # so that none is over before the test has come to it
    for job in (first, second):
        job.trains()
    (whole,) = (job for job in (first, second) if job.fact("JobId") == number)  # its number is that of the array
    other = second if whole is first else first
    cluster.call("scancel", "--batch", "--signal=USR1", whole.number)
    whole.warned()
    for job in (first, second):
        job.let_continue()
    whole.requeued(1)
    for job in (other, whole):
        job.ended()
        assert [line["step"] for line in metrics(job.run)] == list(range(1, 61))
    assert (other.restarts, whole.restarts) == (0, 1)
    assert "ranks" in other.output  # of the doctor's table
    settings = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs]
    assert [config["train"]["g_per_d"] for config in settings] == [1, 3]
    assert {config["tracker"]["group"] for config in settings} == {"ratios"}
    assert settings[1]["tracker"]["tags"] == ["a b"]


def test_a_sweep_of_wandb_is_an_array_of_agents(cluster: Cluster, shards: Path, validation: Path) -> None:
    changes = SMALL | {"data.train": shards, "data.validation": validation, "tracker.name": "wandb", "train.steps": 150}
    settings = [word for word in options(changes | {"run.dir": "runs/agents"}) if "train.g_per_d" not in word]
    sweep = {
        "program": str(ROOT / "train.py"),
        "method": "grid",
        "parameters": {"train.g_per_d": {"values": [1, 2]}},
        "command": ["${env}", sys.executable, "${program}", *settings, "${args}"],
    }
    (cluster.folder / "agents.yaml").write_text(yaml.safe_dump(sweep))
    with WandbServer(cluster.address) as server:
        variables = [f"{name}={value}" for name, value in server.environment.items()]
        cluster.call("env", *variables, "wandb", "sweep", "--project", "p", "agents.yaml")
        export = f"--export=ALL,{','.join(variables)}"
        script = ["--array=1-2", "--cpus-per-gpu=1", "launch/slurm/sweep.sbatch", "wandb:lab/p/sweep0"]
        number = cluster.submit(export, *script)
        runs = [cluster.folder / f"runs/agents/sweep0trial{trial}" for trial in (0, 1)]
        jobs = [Job(cluster, f"{number}_{task}", cluster.folder) for task in (1, 2)]

        def both_train() -> bool:
            assert all(job.is_alive for job in jobs), [job.output for job in jobs]
            return all((run / "metrics.jsonl").exists() for run in runs)

        until("both trials", both_train)
        cluster.call("scancel", "--batch", "--signal=USR1", jobs[0].number)
        until("its next start", lambda: jobs[0].restarts == 1)
        for job in jobs:
            job.ended()
        assert "the trial saves at its next step" in jobs[0].output
        commands = list(dict.fromkeys(server.sweeps.sweeps["sweep0"].commands))
        assert sorted(name for name, _ in commands) == ["resume", "run", "run"]
        assert {run.exit_code for run in server.runs.values()} == {0}
    for run in runs:
        assert [line["step"] for line in metrics(run)] == list(range(1, 151))
