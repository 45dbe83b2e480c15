"""``srgan-dist compare`` as a user runs it: one page, whole or not at all, whatever the runs are."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.conftest import call
from tests.reports.runs import rows, write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs."""
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name, metrics=rows(20), result={"steps": 1000})
    return tmp_path / "runs"


def test_a_page_is_written_into_a_folder_that_is_made_and_replaced_the_next_time(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "new/folder/report.html"
    done = call("compare", runs / "a", "-o", page)
    assert (done.code, done.out) == (0, "")
    assert "1 run, no images" in done.err
    before = page.read_text()
    done = call("compare", runs / "a", runs / "b", runs / "typo", "-o", page)
    assert done.code == 0
    assert f"{runs}/typo: there is no such folder" in done.err
    assert "2 runs, no images" in done.err
    assert page.read_text() != before
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_help_says_what_it_takes() -> None:
    done = call("compare", "--help")
    assert done.code == 0
    assert "--output FILE" in done.out


def test_a_name_cannot_break_out_of_the_page(runs: Path, tmp_path: Path) -> None:
    call("compare", runs, "-o", tmp_path / "harmless.html")
    evil = write_run(tmp_path / "<!--<script></script><script>alert(1)//", metrics=rows(20))
    done = call("compare", runs, evil, "-o", tmp_path / "evil.html")
    assert done.code == 0, done.err
    harmless, page = ((tmp_path / f"{name}.html").read_text() for name in ("harmless", "evil"))
    for tag in ("<script", "</script", "<!--"):
        assert page.lower().count(tag) == harmless.lower().count(tag)


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("", "it is a folder: name a file in it, such as"),
        ("runs/a/metrics.jsonl", "a page's name ends in .html or .htm"),
        ("runs/a/config.yaml/report.html", "Not a directory"),
        ("pipe.html", "it is not a file"),
    ],
)
def test_where_no_page_can_be_written_nothing_is(runs: Path, tmp_path: Path, output: str, problem: str) -> None:
    os.mkfifo(tmp_path / "pipe.html")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = call("compare", runs, "-o", tmp_path / output)
    assert done.code == 2
    assert len(done.lines) == 1
    assert problem in done.lines[0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_without_a_run_there_is_no_page(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = call("compare", tmp_path / "empty", tmp_path / "no\nwhere", "-o", tmp_path / "report.html")
    assert done.code == 2
    assert len(done.lines) == 1
    assert "empty: no run in it; " in done.lines[0]
    assert not (tmp_path / "report.html").exists()


def test_a_full_disk_leaves_the_page_of_before(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "report.html"
    assert call("compare", runs, "-o", page).code == 0
    before = page.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(page))

    monkeypatch.setattr(os, "fsync", full)
    done = call("compare", runs, "-o", page)
    assert done.code == 1
    assert "No space left" in done.lines[-1]
    assert page.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "report.html"}
