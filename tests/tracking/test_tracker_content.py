"""What trackers have of a run: everything, each step once, whatever died in between."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srgan_dist.tracking.step_lines import StepLines
from srgan_dist.utils.times import from_utc
from tests.conftest import ROOT, environment
from tests.tracking.logging_run import IMAGES, RESULT
from tests.tracking.wandb_server import ReceivedRun, WandbServer

CROPS = {f"samples/{image}" for image in IMAGES}
REFERENCES = {f"samples/{image}/{kind}" for image in IMAGES for kind in ("lr", "bicubic", "hr")}


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server


def log(folder: Path, tracker: str, first: int, last: int, end: str, **extra: str) -> str:
    """Log steps in a process of its own; returns what it said."""
    command = [sys.executable, "-m", "tests.tracking.logging_run", str(folder), tracker, str(first), str(last), end]
    env = environment(HOME=str(folder.parent), **extra)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == (9 if end == "kill" else 0), done.stderr
    return done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder, with the run.json of its first start."""
    folder = tmp_path / "run"
    folder.mkdir()
    info = {"commit": "abc", "dirty": True, "libraries": {"torch": "2"}, "starts": [{"step": 0}]}
    (folder / "run.json").write_text(json.dumps(info))
    return folder


def check_rows(received: ReceivedRun) -> None:
    """Each step once, with its pictures, table and histogram; what crops are compared with once."""
    assert [row["step"] for row in received.history] == [1, 2, 3, 4]
    for row in received.history:
        keys = {key for key in row if key.startswith("samples/")}
        assert keys == (CROPS | REFERENCES if row["step"] == 1 else CROPS)
        assert row["samples/baby"]["caption"] == f"baby, step {row['step']}"
        assert row["samples/baby"]["path"] in received.files
        assert row["val/images"]["nrows"] == 2
        assert row["d/real_scores"]["values"][-1] == row["step"]
        assert json.loads(received.files[row["val/images"]["path"]])["data"][1][:2] == ["a b", row["val/psnr_y"]]
    assert received.steps("alert") == [2]
    # The best of all starts, not of the last one alone.
    assert (received.summary["val/psnr_y"], received.summary["val/perceptual"]) == ({"max": 24}, {"min": 0.1})


def test_wandb_has_all_of_a_run_that_was_stopped(folder: Path, server: WandbServer) -> None:
    log(folder, "wandb", 0, 2, "stop", **server.environment)
    received = server.only_run
    assert received.is_preempted
    assert received.exit_code == 75
    assert received.alerts == [("run, step 2", "D wins", "WARN")]
    log(folder, "wandb", 2, 4, "finish", **server.environment)
    check_rows(received)
    assert len(received.alerts) == 1
    assert received.exit_code == 0
    assert received.summary["result"] == RESULT
    names = ("project", "entity", "groupName", "tags", "jobType", "notes")
    assert [received.facts[name] for name in names] == ["sr", "team", "g", ["one"], "train", "why"]
    config = {key: entry["value"] for key, entry in received.facts["config"].items()}
    assert config["train"] == {"steps": 4}
    assert config["parameters"] == {"generator": 7}
    assert config["run_info"] == {"commit": "abc", "dirty": True, "libraries": {"torch": "2"}}
    (weights,) = [artifact for artifact in server.artifacts.received if artifact.type == "model"]
    assert weights.files == {"best.safetensors": b"best after 4"}
    assert weights.aliases == ["best"] or set(weights.aliases) == {"latest", "best"}
    assert weights.is_committed
    assert not server.unanswered


def test_what_a_kill_took_from_wandb_is_sent_again_but_no_alert(folder: Path, server: WandbServer) -> None:
    log(folder, "wandb", 0, 2, "kill", WANDB_MODE="offline")
    err = log(folder, "wandb", 2, 4, "fail", **server.environment)
    assert "W&B: lacks what was logged of steps 1 to 2; it is sent again" in err
    check_rows(server.only_run)
    assert not server.only_run.alerts
    times = [from_utc(line["time"]) for line in StepLines(folder / "metrics.jsonl").read()][:2]
    assert [row["_timestamp"] for row in server.only_run.history[:2]] == times  # when it was, not when it was sent
    assert server.only_run.exit_code == 1
    assert server.only_run.summary["failed"] == "a reason"


@pytest.mark.slow
def test_an_offline_run_is_uploaded_whole(folder: Path, server: WandbServer) -> None:
    log(folder, "wandb", 0, 2, "stop", WANDB_MODE="offline")
    err = log(folder, "wandb", 2, 4, "finish", WANDB_MODE="offline")
    (folder / "best.safetensors").unlink()  # as a run that goes on replaces it
    (log_file,) = re.findall(r"upload later with: wandb sync (.*)", err)
    wandb = Path(sys.executable).with_name("wandb")
    env = environment(HOME=str(folder.parent), **server.environment)
    subprocess.run([wandb, "sync", *log_file.split()], env=env, capture_output=True, check=True, timeout=200)
    check_rows(server.only_run)
    assert server.only_run.summary["result"] == RESULT
    (weights,) = [artifact for artifact in server.artifacts.received if artifact.type == "model"]
    assert weights.files == {"best.safetensors": b"best after 4"}


@pytest.mark.slow
def test_a_trial_that_its_sweep_has_stopped_is_not_to_be_started_again(
    folder: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = {"WANDB_SWEEP_ID": "s", "WANDB_PROJECT": "sr"}
    log(folder, "wandb", 0, 2, "stop", **server.environment, **trial, WANDB_RUN_ID="t0")
    assert server.runs["t0"].is_preempted
    stopped = {"project": {"run": {"stopped": True}}}
    monkeypatch.setattr(server.handler, "graphql_RunStoppedStatus", lambda *_: stopped)
    log(folder, "wandb", 0, 2, "stop", **server.environment, **trial, WANDB_RUN_ID="t1")
    assert not server.runs["t1"].preempting
    assert server.runs["t1"].exit_code == 75


@pytest.mark.slow
def test_a_server_that_dies_costs_a_table_alone(
    folder: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = server.handler.graphql_UpsertBucket

    def dies(handler: Any, asked: dict[str, Any], host: str) -> dict[str, Any]:
        server.status = 503
        result: dict[str, Any] = answer(handler, asked, host)
        return result

    with monkeypatch.context() as patched:
        patched.setattr(server.handler, "graphql_UpsertBucket", dies)
        err = log(folder, "wandb", 0, 2, "finish", **server.environment)
    assert "W&B: has not taken" in err or "W&B: it has not taken everything" in err
    assert "Traceback" not in err
    server.status = 200
    log(folder, "wandb", 2, 4, "finish", **server.environment)
    check_rows(server.only_run)


def test_what_is_damaged_is_left_out_of_the_tracker_and_later_pictures_go(folder: Path) -> None:
    log(folder, "tensorboard", 0, 3, "stop")
    (folder / "samples/baby/step-000002.webp").write_bytes(b"RIFFxx")
    StepLines(folder / "histograms.jsonl").append(2, [{"d/real_scores": [1, 2], "d/fake_scores": None}])
    err = log(folder, "tensorboard", 2, 3, "stop")
    assert "samples/baby/step-000002.webp: cannot be read, and is left out of the tracker" in err
    assert "Traceback" not in err
    log(folder, "tensorboard", 1, 1, "stop")
    assert [path.name for path in sorted((folder / "samples/baby").glob("step-*"))] == ["step-000001.webp"]


def test_tensorboard_has_one_stream_with_each_step_once(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    log(folder, "tensorboard", 0, 3, "kill")  # with nothing written, maybe
    StepLines(folder / "metrics.jsonl").append(9, [{"g/total": 1.0}])  # of steps that are taken again
    log(folder, "tensorboard", 2, 4, "finish")
    (file,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file.parent), size_guidance={"images": 0, "histograms": 0})
    events.Reload()
    for name in ("g/total", "val/psnr_y", "val/perceptual"):
        assert [event.step for event in events.Scalars(name)] == [1, 2, 3, 4]
    assert {*events.Tags()["images"]} == {"samples"} | CROPS | REFERENCES
    assert [event.step for event in events.Images("samples/baby")] == [1, 2, 3, 4]
    assert [event.step for event in events.Images("samples/baby/hr")] == [1]
    assert [event.step for event in events.Histograms("d/real_scores")] == [1, 2, 3, 4]
    tags = events.PluginTagToContent("hparams")
    assert set(tags) == {f"_hparams_/{name}" for name in ("experiment", "session_start_info", "session_end_info")}
    plugin = HParamsPluginData.FromString(tags["_hparams_/session_start_info"])
    assert plugin.session_start_info.hparams["train.steps"].number_value == 4
    plugin = HParamsPluginData.FromString(tags["_hparams_/experiment"])
    assert {info.name.tag for info in plugin.experiment.metric_infos} == {"val/psnr_y", "val/ssim_y", "val/perceptual"}
