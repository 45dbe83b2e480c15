"""Paths in a configuration: the home folder, and a folder of the run that has a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from srgan_dist.config.fields import parts
from srgan_dist.config.load import load_config
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError

HOME = Path("/home/somebody")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(HOME))


def at(config: Any, name: str) -> Any:
    """The value of a key such as ``run.dir``."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def path_keys() -> list[str]:
    return [key.name for part in parts() for key in part.keys if "Path" in str(key.field.annotation)]


def test_there_are_paths_to_test() -> None:
    assert {"run.dir", "run.init_from", "data.cache_dir"} <= set(path_keys())


@pytest.mark.parametrize("name", path_keys())
def test_the_home_folder_is_understood_in_every_path(tmp_path: Path, name: str) -> None:
    assert at(load_config(None, [f"--{name}=~/x/y"]), name) == HOME / "x/y"
    section, _, key = name.partition(".")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({section: {key: "~/x/y"}}))
    assert at(load_config(tmp_path / "config.yaml"), name) == HOME / "x/y"


def test_a_configuration_file_at_home_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.yaml").write_text("train: {steps: 7}")
    assert load_config("~/config.yaml").train.steps == 7


def test_a_default_serves_every_user() -> None:
    assert Config().to_yaml().count("~/.cache/srgan-dist") == 1
    assert Config.model_validate(yaml.safe_load(Config().to_yaml())) == Config()


def test_the_folder_of_a_run_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for given, meant in ((".", "here"), ("..", ""), ("inside/..", "here"), ("./inside", "here/inside")):
        folder = load_config(None, [f"--run.dir={given}"]).run.dir
        assert folder.absolute() == tmp_path / meant
        assert folder.name not in ("", "..")
    with pytest.raises(UserError, match=r"run\.dir: is /, which is no folder for a run"):
        load_config(None, ["--run.dir=/"])
