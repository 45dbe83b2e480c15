"""How sources of data are shown: what may be secret is not."""

from __future__ import annotations

import pytest

from srgan_dist.utils.secrets import shown, shown_by_command, shown_in, shown_tree

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("shards/div2k", "shards/div2k"),
        ("shards/{a,b}-?", "shards/{a,b}-?"),
        ("/a path/with#odd?names", "/a path/with#odd?names"),
        ("https://host/a/b", "https://host/a/b"),
        ("https://host:8080/set-{00..02}/", "https://host:8080/set-{00..02}/"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("file:///on/disk", "file:///on/disk"),
        (f"https://host/a?X-Amz-Signature={SECRET}", "https://host/a?***"),
        (f"https://host/a?x={SECRET} {SECRET}", "https://host/a?***"),
        (f"https://host?{SECRET}", "https://host?***"),
        (f"https://host/a#{SECRET}", "https://host/a#***"),
        (f"https://host/a?x={SECRET}#{SECRET}", "https://host/a?***#***"),
        (f"https://me:{SECRET}@host/a", "https://***@host/a"),
        (f"https://{SECRET}@host:443/a", "https://***@host:443/a"),
        (f"https://me:{SECRET}@{SECRET}@host/a", "https://***@host/a"),
        (f"https://me:{SECRET}/{SECRET}@host/a", "https://***"),
        (f"https://me:{SECRET}?{SECRET}@host/a", "https://***"),
        (f"HTTPS://me:{SECRET}@host/a", "HTTPS://***@host/a"),
        (f"https:/me:{SECRET}@host/a?{SECRET}", "https:/***@host/a?***"),  # as pathlib writes it
        (f"simplecache::https://host/a?{SECRET}", "simplecache::https://host/a?***"),
        ("pipe:ls", "pipe:ls"),
        ("pipe: ", "pipe: "),
        (f'pipe:curl -H "Authorization: Bearer {SECRET}" https://h', "pipe:curl ***"),
        (f"pipe:/usr/bin/env TOKEN={SECRET} x", "pipe:/usr/bin/env ***"),
        (f"pipe:TOKEN={SECRET} curl", "pipe:***"),
        (f"pipe:'{SECRET}' x", "pipe:***"),
        (f"pipe:$({SECRET})", "pipe:***"),
        (f"pipe:curl<{SECRET}", "pipe:***"),
        (f" PIPE: curl {SECRET}", " PIPE:curl ***"),
    ],
)
def test_what_may_be_secret_is_not_shown(source: str, expected: str) -> None:
    assert shown(source) == expected
    assert SECRET not in shown(source)
    assert shown(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"--data.train=http://h/?{SECRET}", "--data.train=http://h/?***"),
        (f"--data.train=[a,http://me:{SECRET}@h/x]", "--data.train=[a,http://***@h/x]"),
        (f"--data.train=a,pipe:curl {SECRET}", "--data.train=a,pipe:curl ***"),
        (f"GET 'https://h/a?{SECRET}' failed", "GET 'https://h/a?***' failed"),
        ("--train.steps=5", "--train.steps=5"),
    ],
)
def test_sources_in_texts_are_masked(text: str, expected: str) -> None:
    assert shown_in(text) == expected


def test_every_text_of_a_configuration_is_masked() -> None:
    tree = {"a": [f"http://h/?{SECRET}", 1], "b": {"c": f"pipe:cat {SECRET}", "d": None}}
    assert shown_tree(tree) == {"a": ["http://h/?***", 1], "b": {"c": "pipe:cat ***", "d": None}}


def test_a_command_that_repeats_its_arguments_shows_none() -> None:
    source = f"pipe:curl -H 'Authorization: Bearer {SECRET}' https://h.example/{SECRET}/x"
    assert shown_by_command("sh: 1: curl: not found", source) == "sh: 1: curl: not found"
    assert SECRET not in shown_by_command(f"curl: no such host: https://h.example/{SECRET}/x ({SECRET})", source)
