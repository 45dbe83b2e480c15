"""Names as the file system keeps them: up to 255 bytes, of any kind; and as one line shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from srgan_dist.utils.files import clear_leftovers, whole_file, write_whole
from srgan_dist.utils.names import beside, expand_home, file_names, printable

LONG = ["a" * 251, "a" * 255, "ä" * 127, "漢" * 85, os.fsdecode(b"\xff" * 255)]


@pytest.mark.parametrize("name", LONG)
def test_a_file_of_any_name_is_written_whole_and_its_leftovers_are_known(tmp_path: Path, name: str) -> None:
    write_whole(tmp_path / name, "content")
    assert (tmp_path / name).read_text() == "content"
    with whole_file(tmp_path / name) as temporary:
        temporary.write_text("content")
        assert len(os.fsencode(temporary.name)) <= 255
    with pytest.raises(KeyError), whole_file(tmp_path / name) as temporary:
        raise KeyError
    temporary.touch()  # as a killed process leaves it
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_names_beside_long_ones_differ_as_these_do() -> None:
    ones = [beside(Path("x") / ("a" * 250 + end), before=".", after=".tmp") for end in ("bcde", "bcdf", "bc")]
    assert len(set(ones)) == 3
    assert all(one.parent == Path("x") and len(one.name) <= 255 for one in ones)
    assert beside(Path("x/short.png"), before=".", after=".tmp") == Path("x/.short.png.tmp")


def test_one_line_shows_what_is_no_text() -> None:
    assert printable("ä b\u3000[b]") == "ä b\u3000[b]"
    assert printable("a\nb\x1b[2J" + os.fsdecode(b"\xff") + "\u2028") == r"a\nb\x1b[2J\udcff\u2028"


def test_a_home_is_found_and_a_name_that_is_none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home("~/x") == Path("/home/me/x")
    for name in ("~nobody-has-this-name/x", "a/~", "x~"):
        assert expand_home(name) == Path(name)


def test_any_texts_become_names_of_files_of_their_own(tmp_path: Path) -> None:
    texts = ["baby", "baby", "Baby", "a/b", "a:b", "..", "", " ", "漢" * 300, "step-1.png", "x\n", os.fsdecode(b"\xff")]
    names = file_names(texts)
    assert names[:5] == ["baby", "baby-2", "Baby-3", "a_b", "a_b-2"]
    assert names[9] == "step-1_png"
    assert len({name.casefold() for name in names}) == len(texts)
    for name in names:
        (tmp_path / name).mkdir()
        assert not name.startswith(".")
    assert {path.name for path in tmp_path.iterdir()} == set(names)
