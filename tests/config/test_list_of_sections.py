"""A list of sections, ``loss.additional``: in files, on the command line, in the help, and what is said of mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from srgan_dist.config.additional_losses import FrequencyLossConfig, LDLLossConfig, WaveletLossConfig
from srgan_dist.config.compatibility import config_fingerprint, refuse_changes
from srgan_dist.config.fields import known_keys, lists_of_sections
from srgan_dist.config.help import full_help, kind, sentence
from srgan_dist.config.load import load_config
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError
from srgan_dist.reports.configurations import completed, differing_keys

LDL, WAVELET = LDLLossConfig(weight=2.0), WaveletLossConfig(levels=3)


@pytest.mark.parametrize(
    "texts",
    [
        ["[{kind: ldl, weight: 2}, {kind: wavelet, levels: 3}]"],
        ["{kind: ldl, weight: 2},{kind: wavelet, levels: 3}"],
        ["{kind: ldl, weight: 2}", "[{kind: wavelet, levels: 3}]"],
        ['[{"kind": "ldl", "weight": 2}, {"kind": "wavelet", "levels": 3}]'],
        ["[{'kind': 'ldl', 'weight': 2.0}, {'kind': 'wavelet', 'levels': 3}]"],  # as W&B's agents write it
    ],
    ids=["yaml", "without-brackets", "option-twice", "json", "python"],
)
def test_the_command_line_gives_it_as_one_text(texts: list[str]) -> None:
    assert load_config(None, [f"--loss.additional={text}" for text in texts]).loss.additional == (LDL, WAVELET)


@pytest.mark.parametrize(
    "text",
    [
        "loss: {additional: [{kind: ldl, weight: 2}, {kind: wavelet, levels: 3}]}",
        "loss:\n  additional:\n  - kind: ldl\n    weight: 2\n  - {kind: wavelet, levels: 3}\n",
        "loss: {additional: '{kind: ldl, weight: 2}, {kind: wavelet, levels: 3}'}",
    ],
    ids=["flow", "block", "one-text"],
)
def test_a_file_gives_it_as_a_list_and_the_command_line_wins(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert load_config(tmp_path / "c.yaml").loss.additional == (LDL, WAVELET)
    assert load_config(tmp_path / "c.yaml", ["--loss.additional=[]"]).loss.additional == ()
    other = load_config(tmp_path / "c.yaml", ["--loss.additional={kind: frequency}"])
    assert other.loss.additional == (FrequencyLossConfig(),)


def test_a_resolved_configuration_gives_it_back() -> None:
    config = load_config(None, ["--loss.additional={kind: wavelet, levels: 3, start: 5}"])
    assert Config.model_validate(yaml.safe_load(config.to_yaml())) == config
    shown: dict[str, Any] = {"kind": "wavelet", "weight": 0.01, "start": 5, "ramp_steps": 0, "levels": 3}
    assert config.shown()["loss"]["additional"] == [shown | {"bands": [1.0, 1.0, 1.0, 1.0]}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{kind: ldl},{kind: wavelet},{kind: ldl}]", "loss.additional: ldl stands there 2 times: keep one of them"),
        ("ldl", "loss.additional.0 is 'ldl'; expected keys, such as kind: "),
        ("[{kind: ldl},{kind: wavelte}]", "loss.additional.1: kind is 'wavelte'; allowed: "),
        ("[{kind: wavelte}]", "; did you mean wavelet?"),
        ("[{kind: ldl, wieght: 1}]", "unknown key loss.additional.0.wieght; did you mean weight?"),
        ("[{kind: ldl, levels: 1}]", "loss.additional.0.levels; it belongs to another kind than the one chosen"),
        ("[{kind: ldl, qqq: 1}]", "unknown key loss.additional.0.qqq; the keys are weight, start, ramp_steps"),
        ("[{kind: ldl, weight: -1}]", "loss.additional.0.weight is -1: input should be greater than or equal to 0"),
        ("[{kind: wavelet, bands: [0, 0, 0, 0]}]", "loss.additional.0.bands: all are 0"),
        ("[{kind: ldl", "loss.additional is '[{kind: ldl': expected ',' or '}'"),
        ("&a [*a]", "loss.additional is '&a [*a]': aliases lead more than"),
        ("None", "loss.additional is None; allowed: list of sections whose kind is "),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as on_command_line:
        load_config(None, [f"--loss.additional={text}"])
    assert message in str(on_command_line.value)
    assert "\n" not in str(on_command_line.value)
    (tmp_path / "c.yaml").write_text(f"train: {{steps: 7}}\nloss:\n  additional: {json.dumps(text)}\n")
    with pytest.raises(UserError) as in_file:
        load_config(tmp_path / "c.yaml")
    assert message in str(in_file.value)
    assert str(in_file.value).startswith(f"{tmp_path}/c.yaml:3: ")


def test_a_mistake_within_a_block_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("loss:\n  additional:\n  - kind: ldl\n  - kind: wavelet\n    levels: 7\n")
    with pytest.raises(UserError, match=r"c\.yaml:5: loss\.additional\.1\.levels is 7: "):
        load_config(tmp_path / "c.yaml")


def test_a_section_where_the_list_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("loss:\n  additional: {kind: ldl}\n")
    with pytest.raises(UserError, match=r"c\.yaml:2: .* expected a list, such as \[\{kind: \w+\}\]"):
        load_config(tmp_path / "c.yaml")
    for option in ("--loss.additional.weight=1", "--loss.additional.0.weight=1"):
        with pytest.raises(UserError, match=r"loss\.additional is a list: --loss\.additional='\[\{kind: \w+\}\]'"):
            load_config(None, [option])


def test_more_levels_than_the_patch_has_pixels_are_refused() -> None:
    small = ["--data.patch_size=8", "--loss.additional={kind: wavelet, levels: 4}"]
    with pytest.raises(UserError, match=r"4 levels of wavelet need data\.patch_size from 16"):
        load_config(None, small)
    load_config(None, [*small, "--data.patch_size=16"])


def test_an_additional_loss_is_enough_to_learn_from() -> None:
    none = ["--loss.pixel.weight=0", "--loss.perceptual.weight=0", "--loss.adversarial.weight=0"]
    load_config(None, [*none, "--loss.additional={kind: ldl}"])
    with pytest.raises(UserError, match=r"and those of loss\.additional, are all 0: nothing is learnt"):
        load_config(None, [*none, "--loss.additional={kind: ldl, weight: 0}"])


def test_the_keys_of_its_sections_are_no_options_but_stand_in_the_help() -> None:
    assert [key for key in known_keys() if key.startswith("loss.additional")] == ["loss.additional"]
    text = " ".join(full_help("train.py", width=80).split())
    (items,) = lists_of_sections().values()
    assert {"ldl", "frequency", "wavelet"} <= {part.chosen.value for part in items if part.chosen}
    for part in items:
        assert part.chosen
        assert f" kind: {part.chosen.value} - " in text
        for key in part.keys:
            assert f"{key.name.rpartition('.')[2]} ({kind(key.field)}; default: " in text
            assert sentence(key.field) in text


def test_a_resumed_run_is_told_of_changes_but_not_of_keys_that_are_new() -> None:
    def refusal(old: dict[str, Any], *overrides: str) -> str:
        try:
            refuse_changes(old, load_config(None, overrides), shards="0" * 64, step=1)
        except UserError as error:
            return str(error)
        return ""

    ldl = "--loss.additional=[{kind: ldl}]"
    without, with_ldl = (
        json.loads(json.dumps(config_fingerprint(load_config(None, given), shards="0" * 64))) for given in ([], [ldl])
    )
    assert not refusal(with_ldl, ldl)
    assert "loss.additional: [] -> [{'kind': 'ldl'" in refusal(without, ldl)
    assert "loss.additional: [{'kind': 'ldl'" in refusal(with_ldl)
    assert "'weight': 2.0" in refusal(with_ldl, "--loss.additional=[{kind: ldl, weight: 2}]")
    assert not refusal(with_ldl, "--run.allow_changes=loss.additional")
    del with_ldl["configuration"]["loss"]["additional"][0]["ramp_steps"]  # of a version that did not have it
    assert not refusal(with_ldl, ldl)
    assert "'ramp_steps': 3" in refusal(with_ldl, "--loss.additional=[{kind: ldl, ramp_steps: 3}]")
    del without["configuration"]["loss"]["additional"]
    assert not refusal(without)
    assert "loss.additional: not known -> [{'kind': 'ldl'" in refusal(without, ldl)


def test_runs_that_differ_in_it_are_compared_by_it() -> None:
    old = {"loss.pixel.weight": 0.01}  # of a version that did not have it
    none: dict[str, Any] = {"loss.additional": []}
    short = {"loss.additional": [{"kind": "ldl"}]}
    full = {"loss.additional": [{"kind": "ldl", "weight": 1.0, "start": 0, "ramp_steps": 0}]}
    assert differing_keys([completed(old), completed(none)]) == []
    assert differing_keys([completed(short), completed(full)]) == []
    assert differing_keys([completed(old), completed(full)]) == ["loss.additional"]


def test_ldl_refuses_patches_that_are_smaller_than_its_surroundings() -> None:
    overrides = ["--data.scale=1", "--data.degradation.kind=noise", "--loss.additional=[{kind: ldl}]"]
    with pytest.raises(UserError, match=r"ldl needs data\.patch_size from 4, which is 3"):
        load_config(None, [*overrides, "--data.patch_size=3"])
