"""Generators of classes that are not ours, in the configuration: names of a form, and parameters as a mapping."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srgan_dist.config.compatibility import config_fingerprint, refuse_changes
from srgan_dist.config.load import config_from, load_config
from srgan_dist.config.models import OwnGeneratorConfig, SpandrelConfig
from srgan_dist.errors import UserError

OWN = "--generator.name=my_nets:Net"


@pytest.mark.parametrize(
    "name", ["my_nets:Net", "a.b_2.c:Outer.Inner", "grün:Netz"], ids=["plain", "nested", "of another alphabet"]
)
def test_a_name_of_the_form_chooses_the_users_class(name: str) -> None:
    assert load_config(None, [f"--generator.name={name}"]).generator == OwnGeneratorConfig(name=name)


@pytest.mark.parametrize("name", ["my_nets", "my_nets:", ":Net", "1:2", "a:b:c", "a b:c", "../a:b", "a;b:c"])
def test_another_name_is_unknown(name: str) -> None:
    with pytest.raises(UserError, match=r"allowed: srresnet, .*, spandrel, module:Class"):
        load_config(None, [f"--generator.name={name}"])


def test_parameters_are_a_mapping_on_the_command_line_and_in_a_file(tmp_path: Path) -> None:
    expected = {"width": 8, "depths": [2, 2], "act": "relu", "bias": False, "drop": None, "rate": 0.5}
    written = ["{width: 8, depths: [2, 2], act: relu, bias: false, drop: null, rate: 0.5}", json.dumps(expected)]
    for text in (*written, "width: 8, depths: [2, 2], act: relu, bias: false, drop: null, rate: 0.5"):
        generator = load_config(None, [OWN, f"--generator.parameters={text}"]).generator
        assert generator == OwnGeneratorConfig(name="my_nets:Net", parameters=expected)
    (tmp_path / "a.yaml").write_text(f"generator: {{name: spandrel, architecture: SwinIR, parameters: {written[0]}}}")
    config = load_config(tmp_path / "a.yaml")
    assert config.generator == SpandrelConfig(architecture="SwinIR", parameters=expected)
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "again.yaml") == config


def test_parameters_of_a_later_file_replace_those_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("generator: {name: 'my_nets:Net', parameters: {width: 8, depth: 2}}")
    (tmp_path / "b.yaml").write_text("generator: {parameters: {depth: 3}}")
    config = config_from([f"--config={tmp_path}/a.yaml", f"--config={tmp_path}/b.yaml"], prog="train.py")
    assert config.generator == OwnGeneratorConfig(name="my_nets:Net", parameters={"depth": 3})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{width", "generator.parameters: expected ',' or '}'"),
        ("[1, 2]", "generator.parameters: "),
        ("{width: 1, width: 2}", "the key width stands here and on line 1"),
        ("{a: !!python/name:os.system b}", "generator.parameters: "),
    ],
)
def test_what_is_no_mapping_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        load_config(None, [OWN, f"--generator.parameters={text}"])
    assert "\n" not in str(caught.value)


def test_every_change_of_the_parameters_counts_in_a_resumed_run() -> None:
    given = [OWN, "--generator.parameters={width: 8, depth: 2}"]
    old = json.loads(json.dumps(config_fingerprint(load_config(None, given), shards="0" * 64)))
    refuse_changes(old, load_config(None, given), shards="0" * 64, step=1)
    for other in ("{width: 8}", "{width: 8, depth: 2, more: 1}", "{width: 8, depth: 3}"):
        changed = load_config(None, [OWN, f"--generator.parameters={other}"])
        with pytest.raises(UserError, match=r"generator.parameters: \{'width': 8, 'depth': 2\} -> \{"):
            refuse_changes(old, changed, shards="0" * 64, step=1)


@pytest.mark.parametrize(("recompute", "use"), [("generator", "none"), ("both", "perceptual")])
def test_parts_that_are_not_known_cannot_be_run_again(recompute: str, use: str) -> None:
    with pytest.raises(UserError, match=f"train.recompute is {recompute}, .*my_nets:Net does not know: use {use}"):
        load_config(None, [OWN, f"--train.recompute={recompute}"])
