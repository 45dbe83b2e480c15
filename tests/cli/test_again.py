"""``train --from-run RUN``: the same experiment again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srgan_dist.cli.again import configuration
from srgan_dist.errors import UserError
from tests.conftest import Finished, Train, cli, launch, metrics
from tests.records.folders import make_run


def learnt(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, without what is of the clock and the machine."""
    return [
        {key: value for key, value in line.items() if key not in ("time", "hours") and not key.startswith("perf/")}
        for line in metrics(folder)
    ]


def notes(done: Finished) -> list[str]:
    """What was logged of the run that is repeated."""
    return [line for line in done.lines if "those of" in line or "not checked" in line]


@pytest.mark.slow
def test_metrics_agree_bit_for_bit_with_the_first_run(train: Train, tmp_path: Path) -> None:
    run = tmp_path / "first"
    assert train(run).code == 0
    done = cli("train", "--from-run", run)
    assert done.code == 0, done.err
    again = tmp_path / "first-again"
    assert learnt(again) == learnt(run)
    assert json.loads((again / "run.json").read_text())["parent"] == str(run)
    assert f"{again}/: result.json" in done.err
    assert all("the code is commit" in note for note in notes(done)), "nothing else may differ"

    # The first run stays as it was, and the next one gets another name.
    assert not [path for path in run.rglob("*") if path.stat().st_mtime > (again / "config.yaml").stat().st_mtime]
    done = cli("train", "--from-run", run, "--train.steps=2")
    assert done.code == 0, done.err
    assert learnt(tmp_path / "first-again-2")[:1] == learnt(run)[:1]


@pytest.mark.slow
def test_ranks_agree_on_the_folder_and_one_that_was_stopped_resumes_there(train: Train, tmp_path: Path) -> None:
    run = tmp_path / "first"
    assert train(run, ranks=2).code == 0
    done = launch(2, "train.py", "--from-run", run)
    assert done.code == 0, done.err
    again = tmp_path / "first-again"
    assert learnt(again) == learnt(run)
    (again / "result.json").unlink()
    (again / "stopped.json").write_text('{"signal": "SIGTERM", "step": 6}')
    done = launch(2, "train.py", f"--from-run={run}")
    assert done.code == 0, done.err
    assert f"{again}: resumes after step 6 of 6" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "first-again"]


@pytest.mark.slow
def test_other_data_is_refused_unless_it_is_allowed(train: Train, large_shards: Path, tmp_path: Path) -> None:
    run, changes = tmp_path / "first", {"train.steps": 1, "train.pretrain_steps": 1}
    assert train(run, changes=changes).code == 0
    done = cli("train", "--from-run", run, f"--data.train={large_shards}")
    assert done.code == 2
    assert "data.train: shards " in done.lines[-1]
    assert f"where {run} was trained on shards " in done.lines[-1]
    assert "--run.allow_changes=data.train" in done.lines[-1]
    (run / "run.json").unlink()  # as of an earlier version: the checkpoint knows the data as well
    assert cli("train", "--from-run", run, f"--data.train={large_shards}").code == 2
    done = cli("train", "--from-run", run, f"--data.train={large_shards}", "--run.allow_changes=data.train")
    assert done.code == 0, done.err
    assert learnt(tmp_path / "first-again"), "what was refused has taken no name"


def test_the_configuration_is_the_run_s_but_for_what_is_asked(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=7)
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("allow_changes: []", "allow_changes: [data]")
    )
    config, parent = configuration(["--from-run", str(run), "--run.seed=5"], prog="train.py")
    assert parent == config.run.dir == run
    assert (config.train.steps, config.run.seed) == (7, 5)
    assert config.run.allow_changes == (), "what the first run was allowed is no matter of this one"
    config, parent = configuration([f"--from-run={run}", f"--run.dir={tmp_path}/x"], prog="train.py")
    assert config.run.dir == tmp_path / "x"
    config, parent = configuration(["--train.steps=9"], prog="train.py")
    assert (config.train.steps, parent) == (9, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from-run", "RUN", "--config", "x.yaml"], "--from-run and --config: a run is repeated with its own"),
        (["--from-run", "RUN", "--config=x.yaml"], "--from-run and --config: a run is repeated with its own"),
        (["--from-run", "RUN", "--run.dir=RUN/"], "--run.dir is RUN, where the run that is to be repeated lies"),
        (["--from-run", "RUN", "--from-run", "RUN"], "--from-run stands there twice"),
        (["--from-run="], "--from-run is empty"),
        (["--from-run"], "expected one argument"),
        (
            ["--from-run", "RUN/none"],
            "--from-run is RUN/none, which is no folder of a run: there is no RUN/none/config",
        ),
        (["--from-run", "RUN", "--train.step=3"], "unknown option --train.step; did you mean train.steps"),
        (["--from-run", "RUN", "--train.steps=x"], "train.steps is 'x'"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    run = str(make_run(tmp_path / "run"))
    with pytest.raises(UserError) as caught:
        configuration([argument.replace("RUN", run) for argument in arguments], prog="train.py")
    assert said.replace("RUN", run) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_help_shows_it() -> None:
    from srgan_dist.config.help import full_help, short_help

    for text in (short_help("train.py", width=100), full_help("train.py", width=100)):
        assert "[--config FILE | --from-run RUN]" in text


def test_an_rrdb_of_an_earlier_version_keeps_its_padding(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {scale: 2}\ngenerator: {name: rrdb}\n")
    for options, padding in (([], "replicate"), (["--generator.padding=reflect"], "reflect")):
        config, _ = configuration([f"--from-run={tmp_path}", *options], prog="train")
        assert getattr(config.generator, "padding", None) == padding
    config, _ = configuration([f"--from-run={tmp_path}", "--generator.name=compact"], prog="train")
    assert config.generator.name == "compact"
