"""``train --help`` and ``--help-all``: what the configuration's classes say, and nothing that is written twice."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter
from pydantic.fields import FieldInfo

from srgan_dist.config.base import Choice, Section, choice_key, choices
from srgan_dist.config.fields import choosers, known_keys, parts
from srgan_dist.config.help import describe, full_help, in_words, kind, sentence, short_help
from srgan_dist.config.models import SRResNetConfig
from srgan_dist.config.root import Config
from tests.conftest import call

SHORT, FULL = short_help("train.py", width=80), full_help("train.py", width=80)


def test_the_short_help_fits_a_terminal() -> None:
    lines = SHORT.splitlines()
    assert len(lines) < 66
    assert max(map(len, lines)) <= 80


def test_the_short_help_shows_every_choice_of_every_union() -> None:
    for chooser, values in choosers().items():
        assert len(values) > 1
        for value in values:
            assert f"  --{chooser}={value} " in SHORT


def test_the_short_help_shows_all_values_of_the_literals_that_it_shows() -> None:
    assert "vanilla, relativistic, lsgan, hinge." in SHORT
    assert "mse, l1, charbonnier." in SHORT


def test_the_short_help_is_grouped_by_section() -> None:
    headings = [line.removesuffix(":") for line in SHORT.splitlines() if re.fullmatch(r"[a-z]+:", line)]
    assert set(headings) <= {field.alias or name for name, field in Config.model_fields.items()}
    assert len(headings) == len(set(headings)) > 8
    for heading, text in zip(headings, re.split(r"^[a-z]+:$", SHORT, flags=re.MULTILINE)[1:], strict=True):
        assert set(re.findall(r"^  --(\w+)", text, re.MULTILINE)) == {heading}


def test_what_the_short_help_shows_is_a_key_with_its_default() -> None:
    defaults = {key.name: key.default for part in parts() if part.is_default for key in part.keys}
    shown = re.findall(r"^  --([\w.]+)=(\S+)", SHORT, re.MULTILINE)
    assert len(shown) > 30
    for name, value in shown:
        assert name in choosers() or in_words(defaults[name]) == value, name


def test_common_keys_are_fields_of_their_section() -> None:
    for part in parts():
        assert set(part.section.common) <= set(part.section.model_fields), part.path


def test_the_full_help_lists_every_key_with_its_default_and_its_description() -> None:
    text = " ".join(FULL.split())
    assert max(map(len, FULL.splitlines())) <= 80
    for part in parts():
        for key in part.keys:
            assert f"--{key.name} ({kind(key.field)}; default: " in text
            assert sentence(key.field) in text
        assert describe(part) in text
        assert not part.chosen or f"{part.chooser}={part.chosen.value}" in text
    assert {key for key in known_keys() if f"--{key} " not in FULL} == set(choosers())


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (PositiveInt, "whole number from 1"),
        (PositiveFloat | None, "number above 0 or None"),
        (Annotated[float, Field(ge=0.0, lt=1.0)], "number from 0 below 1"),
        (tuple[PositiveInt, PositiveInt], "2 whole numbers from 1"),
        (tuple[str, ...], "list of texts"),
        (bool, "true or false"),
        (Literal["a", "b"], "a, b"),
        (PositiveInt | Literal["auto"], "whole number from 1 or auto"),
    ],
)
def test_types_and_limits_in_words(annotation: Any, expected: str) -> None:
    assert kind(FieldInfo.from_annotation(annotation)) == expected


def test_limits_of_validators_are_named() -> None:
    assert "--data.degradation.first.kernel_sizes (2 whole numbers from 3 to 21, ascending, odd;" in " ".join(
        FULL.split()
    )


def test_a_generator_says_its_scales() -> None:
    assert "the SRGAN paper's generator; data.scale 1, 2, 4, 8." in " ".join(FULL.split())


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["train", "--help"], "usage: srgan-dist train "),
        (["train", "--train.steps=3", "-h"], "usage: srgan-dist train "),
        (["train", "--help-all"], "usage: srgan-dist train "),
        (["plan", "--memory=1GiB", "--help-all"], "usage: srgan-dist plan "),
    ],
)
def test_the_help_is_printed(arguments: list[str], first: str) -> None:
    done = call(*arguments)
    assert done.code == 0
    assert done.out.startswith(first)
    assert not done.err


@pytest.mark.parametrize("command", [["plan"], ["doctor"], ["bench", "step"], ["bench", "scaling"]])
def test_commands_that_take_a_configuration_say_so(command: list[str]) -> None:
    text = " ".join(call(*command, "--help").out.split())
    assert "Train's options apply, too: --config FILE or --from-run RUN, and --SECTION.KEY=VALUE." in text
    assert "srgan-dist train --help " in text


@pytest.mark.parametrize("command", [["upscale"], ["evaluate"], ["bench", "loader"]])
def test_commands_that_take_none_do_not(command: list[str]) -> None:
    assert "SECTION.KEY" not in call(*command, "--help").out


class _This(Section):
    kind: Literal["this"] = "this"
    size: int = 1


class _That(Section):
    kind: Literal["that"] = "that"
    mode: Literal["a", "b"] = "a"
    note: ClassVar[str] = "no field"


def test_a_choice_is_read_off_its_classes() -> None:
    union = _This | _That
    sections: dict[str, type[Section]] = {"this": _This, "that": _That}
    assert (choices(union), choice_key(union)) == (sections, "kind")
    assert choices(int) == {}
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[union, Choice()])
    assert adapter.validate_python({"kind": "that", "mode": "b"}) == _That(mode="b")
    assert adapter.validate_python({"size": 2}) == _This(size=2)
    assert adapter.validate_python(_That()) == _That()
    assert adapter.dump_python(_That(), mode="json") == {"kind": "that", "mode": "a"}
    for wrong in ({"kind": "other"}, {"kind": None}, 3, None, SRResNetConfig()):
        with pytest.raises(ValueError, match="unknown kind"):
            adapter.validate_python(wrong)
