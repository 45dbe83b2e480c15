"""Reading from an S3 server, that of moto, over HTTP."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from srgan_dist.data.shard_format.manifest import read_manifest
from srgan_dist.data.shards.shard_set import ShardSet, open_shards
from srgan_dist.errors import Failure, UserError

moto_server = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, packed: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with the packed folder in it, and credentials in the environment that may read it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    s3fs.S3FileSystem.clear_instance_cache()
    store = fsspec.filesystem("s3")
    if not store.exists("photos"):
        store.mkdir("photos")
        store.put(f"{packed}/", "photos/x4/", recursive=True)
    return "s3://photos"


def content(shards: ShardSet, number: int) -> bytes:
    with os.fdopen(shards.open_shard(number), "rb") as file:
        return file.read()


def test_a_bucket_is_read_like_the_local_folder(bucket: str, packed: Path, tmp_path: Path) -> None:
    here, there = open_shards([packed]), open_shards([f"{bucket}/x4"], cache_dir=tmp_path)
    np.testing.assert_array_equal(there.index, here.index)
    for number, path in enumerate(here.shard_paths):
        assert content(there, number) == path.read_bytes()


def test_objects_longer_than_one_request_are_read_whole(
    bucket: str, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgan_dist.data.remote.streams._STORE_PIECE", 10_000)
    shards = open_shards([f"{bucket}/x4"], cache_dir=tmp_path)
    assert content(shards, 0) == (packed / "shard-000000.tar").read_bytes()


def _in_a_child(shards: ShardSet, number: int, results: Any) -> None:
    results.put(len(content(shards, number)))


def test_a_forked_worker_reads_although_its_parent_has_read(bucket: str, packed: Path, tmp_path: Path) -> None:
    shards = open_shards([f"{bucket}/x4"], cache_dir=tmp_path)
    content(shards, 0)  # starts fsspec's thread and connections here
    results: Any = FORK.Queue()
    child = FORK.Process(target=_in_a_child, args=(shards, 1, results))
    child.start()
    assert results.get(timeout=100) == read_manifest(packed).shards[1].bytes
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("s3://photos/other", r"^s3://photos/other/manifest.json: does not exist, or its bucket does not"),
        ("s3://no-such-bucket/x4", r"^s3://no-such-bucket/x4/manifest.json: does not exist, or its bucket does not"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_missing_folders_and_buckets_are_named(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        open_shards([source], cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_credentials_are_named(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=r"access is refused \(.*credentials.*\): check the credentials"):
        open_shards([f"{bucket}/x4"], cache_dir=tmp_path)


def test_wrong_credentials_are_refused_at_the_first_try(
    bucket: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_from_now_on(after: bytes) -> None:  # moto lets so many requests pass and then looks at credentials
        plain = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=after, headers=plain)
        urllib.request.urlopen(request, timeout=10).close()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    check_from_now_on(b"0")
    try:
        pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", pauses.append)
        with pytest.raises(
            UserError, match=r"manifest.json: access is refused \(.*\): check the credentials"
        ) as caught:
            open_shards([f"{bucket}/x4"], cache_dir=tmp_path)
        assert "\n" not in str(caught.value)
        assert pauses == []  # a second try would not help
    finally:
        check_from_now_on(b"inf")


def test_a_server_that_does_not_answer_is_reported(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(Failure, match=r"manifest.json: cannot be read \(.*127.0.0.1:9.*\), 3 tries") as caught:
        open_shards([f"{bucket}/x4"], cache_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert len(pauses) == 2
    assert sum(pauses) < 5


@pytest.mark.parametrize(("source", "package", "extra"), [("gs://b/x", "gcsfs", "gcs"), ("s3://b/x", "s3fs", "s3")])
def test_a_missing_driver_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, package: str, extra: str
) -> None:
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, source[:2], raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UserError, match=rf"the driver for {source[:2]}:// is not installed: pip install 'srgan-dist\[{extra}\]'"
    ):
        open_shards([source], cache_dir=tmp_path)
