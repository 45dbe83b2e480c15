"""Signed URLs and commands with tokens: what a run writes, sends and prints has no secret in it, and it resumes."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Finished, Train, cli, metrics
from tests.data.webserver import serving

SECRET, NEXT_SECRET = "hunter2hunter2hunter2", "trustno1trustno1"


def holding(folder: Path, secret: str) -> list[str]:
    """The files below a run's folder that hold a secret, but for its config.yaml, which needs it to resume."""
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / "config.yaml"]
    assert len(files) > 5
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def said(done: Finished) -> str:
    return done.out + done.err


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A home without keys of W&B."""
    return {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}


@pytest.mark.slow
def test_the_signature_of_a_url_stays_in_the_configuration_alone(
    train: Train, shards: Path, tmp_path: Path, home: dict[str, str]
) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    with serving(shards.parent) as web:
        url = f"{web.url}/{shards.name}?X-Amz-Signature="
        changes: dict[str, Any] = {"data.train": url + SECRET, "data.cache_dir": cache, "tracker.name": "wandb"}
        done = train(run, changes=changes | {"train.steps": 3}, **home)
        assert done.code == 0, done.err
        assert not holding(run, SECRET)
        assert SECRET not in said(done)
        assert mode(run / "config.yaml") == 0o600
        # Signed anew, it is the same data, which is fetched already.
        web.requests.clear()
        done = train(run, changes=changes | {"data.train": url + NEXT_SECRET}, **home)
        assert done.code == 0, done.err
        assert "resumes after step 3" in done.err
        assert not [name for name in web.requests if name.endswith(".tar")]
        # With its own file, to which somebody gave more to do.
        done = cli("train", "--config", run / "config.yaml", "--train.steps=8", **home)
        assert done.code == 0, done.err
    assert [line["step"] for line in metrics(run) if "g/total" in line] == list(range(1, 9))
    assert not holding(run, SECRET) + holding(run, NEXT_SECRET)
    assert NEXT_SECRET not in said(done)


@pytest.mark.slow
def test_the_arguments_of_a_command_stay_in_the_configuration_alone(
    train: Train, shards: Path, tmp_path: Path, home: dict[str, str]
) -> None:
    run = tmp_path / "run"
    tar = next(shards.glob("*.tar"))
    changes = {"data.cache_dir": tmp_path / "cache", "tracker.name": "tensorboard"}
    for secret, steps in ((SECRET, 3), (NEXT_SECRET, 6)):
        command = f"pipe:cat {tar} # Authorization: Bearer {secret}"
        done = train(run, changes={**changes, "data.train": command, "train.steps": steps}, **home)
        assert done.code == 0, done.err
        assert not holding(run, secret)
        assert secret not in said(done)
    assert "resumes after step 3" in done.err


def test_a_configuration_without_secrets_is_for_those_whom_the_umask_lets_read_it(train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "run", changes={"train.steps": 2, "train.pretrain_steps": 2})
    assert done.code == 0, done.err
    assert mode(tmp_path / "run/config.yaml") == mode(tmp_path / "run/metrics.jsonl") != 0o600


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("URL/nothing?sig=SECRET", "/nothing/manifest.json?***: does not exist"),
        ("http://me:SECRET@127.0.0.1/x", "http://***@127.0.0.1/x: holds a password"),
        ("http://127.0.0.1:1/x?sig=SECRET", "http://127.0.0.1:1/x/manifest.json?***: cannot be reached"),
        ("file://SECRET@host/x", "file://***@host/x: expected file:///ABSOLUTE/PATH"),
        ("ftp://host/x?SECRET", "ftp://host/x?***: scheme 'ftp'"),
        ("http://host/{a,b?SECRET", "braces do not match"),
        ("pipe:cat /nowhere/SECRET", "pipe:cat ***: the command failed with exit code 1 (cat: ***: No such file"),
        ("pipe:echo SECRET", "cannot be read as a tar"),
    ],
)
def test_no_message_shows_a_secret(train: Train, shards: Path, tmp_path: Path, source: str, says: str) -> None:
    with serving(shards.parent) as web:
        given = source.replace("SECRET", SECRET).replace("URL", web.url)
        changes = {"data.train": given, "data.cache_dir": tmp_path / "cache"}
        done = train(tmp_path / "run", changes=changes)
    assert done.code in (1, 2), done.err
    assert says in done.err
    assert SECRET not in said(done)
    assert "Traceback" not in done.err


def test_a_mistyped_command_line_does_not_show_a_secret() -> None:
    for arguments in (
        ["train", f"http://h/?{SECRET}"],
        ["train", f"--data.train.x=http://h/?{SECRET}"],
        ["train", f"--data.scale=http://me:{SECRET}@h/"],
        ["check", "x", f"--data.train=pipe:curl {SECRET}"],
        ["plan", "--memory=1GiB", f"pipe:curl {SECRET}"],
    ):
        done = cli(*arguments)
        assert done.code == 2
        assert SECRET not in said(done), done.err
