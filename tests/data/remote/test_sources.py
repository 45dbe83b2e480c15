"""What `data.train` may name: which entries are expanded, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_dist.data.remote.sources import expand_sources, file_url, folder_url, is_remote
from srgan_dist.errors import UserError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("div2k-b", "div2k-a", "div2k-c.partial-17", "flickr", "odd[1]{x}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "div2k-photos").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["flickr"], ["flickr"]),
        (["flickr/manifest.json"], ["flickr/manifest.json"]),
        (["div2k-*"], ["div2k-a", "div2k-b"]),
        (["flickr", "div2k-?"], ["flickr", "div2k-a", "div2k-b"]),
        (["*/manifest.json"], ["div2k-a/manifest.json", "div2k-b/manifest.json", "flickr/manifest.json",
                               "odd[1]{x}/manifest.json"]),
        (["div2k-{b,a}"], ["div2k-b", "div2k-a"]),
        (["{flickr,div2k-*}"], ["flickr", "div2k-a", "div2k-b"]),
        (["missing"], ["missing"]),  # opening it has the better message
        (["odd[1]{x}"], ["odd[1]{x}"]),
        (["https://host/set-{00..02}/"], ["https://host/set-00/", "https://host/set-01/", "https://host/set-02/"]),
        (["s3://bucket/a", "gs://bucket/b"], ["s3://bucket/a", "gs://bucket/b"]),
        (["pipe:cat a.tar | tee {b,c}*"], ["pipe:cat a.tar | tee {b,c}*"]),
        ([], []),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("place")
def test_entries_are_expanded(entries: list[str], expected: list[str]) -> None:
    assert expand_sources(entries) == expected


def test_absolute_globs_are_expanded(place: Path) -> None:
    assert expand_sources([place / "div2k-?"]) == [str(place / "div2k-a"), str(place / "div2k-b")]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("div3k-*", "'div3k-*': matches nothing, expected a folder made by `srgan-dist pack`"),
        ("div2k-ph*", "'div2k-ph*': matches 1 paths, none of them a folder made by"),
        ("{a,b", "'{a,b': braces do not match"),
        ("ftp://host/x", "ftp://host/x: scheme 'ftp', allowed are https, http, s3, gs, file, pipe: and paths"),
        ("s3:///x", "s3:///x: names no host or bucket"),
        ("file://shards/x", "file://shards/x: expected file:///ABSOLUTE/PATH"),
        ("https://me:secret@host/x?key=hidden", "https://***@host/x?***: holds a password"),
        ("s3://bucket/set-*", "globs work in local paths only"),
        ("pipe: ", "'pipe:' names no command"),
    ],
)
@pytest.mark.usefixtures("place")
def test_entries_that_cannot_name_packed_data_are_refused(entry: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        expand_sources([entry])
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_urls_of_files_keep_the_query() -> None:
    for url in ("https://h/a/manifest.json?sig=1", "https://h/a/?sig=1", "https://h/a?sig=1"):
        assert folder_url(url) == "https://h/a?sig=1"
    assert file_url("https://h/a?sig=1", "x y.tar") == "https://h/a/x%20y.tar?sig=1"
    assert file_url(folder_url("s3://b/manifest.json"), "x y.tar") == "s3://b/x y.tar"


def test_urls_and_commands_are_remote_and_paths_are_not() -> None:
    assert [is_remote(s) for s in ("s3://b", "pipe:ls", "a/b", "/c:d")] == [True, True, False, False]


def test_the_home_folder_is_understood_in_paths_and_patterns_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert expand_sources(["~/flickr"]) == [f"{place}/flickr"]
    assert expand_sources(["~/flick?"]) == [f"{place}/flickr"]
    assert expand_sources(["{~/flickr,~/absent}"]) == [f"{place}/flickr", f"{place}/absent"]
    others = ["https://host/~/set", "pipe:cat ~/set.tar", "s3://bucket/~me/set", "~nobody-has-this-name/set"]
    assert expand_sources(others) == others
