"""Lists in one text: the same on the command line and in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from srgan_dist.config.lists import split_list
from srgan_dist.config.load import load_config
from srgan_dist.errors import UserError

LISTS = {
    "a": ["a"],
    "a,b": ["a", "b"],
    " a , b ": ["a", "b"],
    "[a, b]": ["a", "b"],
    "[a, b,]": ["a", "b"],
    "a,": ["a"],
    "[]": [],
    "[ ]": [],
    "s/{a,b}": ["s/{a,b}"],
    "{a,b}/{c,d},e": ["{a,b}/{c,d}", "e"],
    "[s/{a,b},c]": ["s/{a,b}", "c"],
    "[v1]x": ["[v1]x"],
    "[ab]*": ["[ab]*"],
    "[ab],c": ["[ab]", "c"],
    "[a],[b]": ["[a]", "[b]"],
    "s/[0-9,x].tar,b": ["s/[0-9,x].tar", "b"],
    '"a,b"': ["a,b"],
    "'a,b'": ["a,b"],
    "'a,b',c": ["a,b", "c"],
    "['a','b']": ["a", "b"],
    '["a","b, c"]': ["a", "b, c"],
    "['']": [""],
    'a"b': ['a"b'],
    "Bob's,Eve's": ["Bob's", "Eve's"],
    "'t Hooft,b": ["'t Hooft", "b"],
    "{a,b": ["{a", "b"],
    "a}b,c": ["a}b", "c"],
    "a],b": ["a]", "b"],
    "pipe:curl -s 'http://h/x?a=1,2' | tar -x": ["pipe:curl -s 'http://h/x?a=1,2' | tar -x"],
    "[a, pipe:x y,z]": ["a", "pipe:x y,z"],
    "0.5,0.9": ["0.5", "0.9"],
}


@pytest.mark.parametrize("text", LISTS)
def test_a_comma_separates_where_it_stands_in_nothing(text: str) -> None:
    assert split_list(text) == LISTS[text]


@pytest.mark.parametrize("text", [text for text in LISTS if all(LISTS[text])])
def test_a_text_means_the_same_in_a_file_and_on_the_command_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"data": {"train": text}}))
    in_file = load_config(tmp_path / "c.yaml").data.train
    assert in_file == load_config(None, [f"--data.train={text}"]).data.train == tuple(LISTS[text])


def test_numbers_are_lists_as_well(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("optimizer: {betas: '0.5,0.9', generator: {milestones: '10, 20'}}")
    optimizer = load_config(tmp_path / "c.yaml").optimizer
    assert (optimizer.betas, optimizer.generator.milestones) == ((0.5, 0.9), (10, 20))


def test_the_items_of_a_files_list_are_taken_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data:\n  train:\n  - a,b\n  - '[c]'\n  - s/{d,e}\n")
    assert load_config(tmp_path / "c.yaml").data.train == ("a,b", "[c]", "s/{d,e}")


@pytest.mark.parametrize("text", ["a,,b", "['']", ",a"])
def test_a_name_that_is_empty_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"data\.train: one of the names is empty"):
        load_config(None, [f"--data.train={text}"])
