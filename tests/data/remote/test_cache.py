"""The cache of remote shards: bounded, shared by processes, and unharmed by servers and processes that fail."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from srgan_dist.data.packing.pack import pack
from srgan_dist.data.remote.cache import Cache, RemoteFile
from srgan_dist.data.shard_format.index_rows import max_index_bytes
from srgan_dist.data.shard_format.manifest import read_manifest
from srgan_dist.data.shards.shard_set import ShardSet, open_shards
from srgan_dist.errors import Failure, UserError
from srgan_dist.utils.files import file_sha256
from srgan_dist.utils.locks import locked
from tests.data.webserver import WebServer, serving

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def served(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to serve, with `set` in it, which is packed in about ten shards."""
    root = tmp_path_factory.mktemp("served")
    pack(photos, root / "set", scale=4, tile=32, shard_bytes=20_000)
    assert 8 <= len(read_manifest(root / "set").shards) <= 20
    return root


@pytest.fixture
def web(served: Path) -> Iterator[WebServer]:
    with serving(served) as web:
        yield web


def shard_file(web: WebServer, cache: Path, number: int = 1) -> RemoteFile:
    shard = read_manifest(web.folder / "set").shards[number]
    return RemoteFile(f"{web.url}/set/{shard.name}", cache / "set" / shard.name, shard.bytes, shard.sha256)


def content(shards: ShardSet, number: int) -> bytes:
    with os.fdopen(shards.open_shard(number), "rb") as file:
        return file.read()


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.name.endswith((".part", ".new")) or "fetching" in path.name]


def cached(cache: Path) -> set[str]:
    return {path.name for path in cache.glob("*/*.tar")}


@pytest.mark.parametrize("source", ["set", "set/", "set/manifest.json", "set?sig=secret"])
def test_a_remote_folder_reads_like_the_local_one(web: WebServer, served: Path, tmp_path: Path, source: str) -> None:
    here = open_shards([served / "set"])
    there = open_shards([f"{web.url}/{source}"], cache_dir=tmp_path / "cache")
    assert there.is_remote
    assert not here.is_remote
    np.testing.assert_array_equal(there.index, here.index)
    assert there.digest == here.digest
    assert set(web.requests) == {"manifest.json", "index.npy"}
    for number, path in enumerate(here.shard_paths):
        assert content(there, number) == path.read_bytes() == there.shard_paths[number].read_bytes()
    assert max(web.requests.values()) == 1
    assert all(path.endswith("?sig=secret") for path in web.paths) == ("sig" in source)
    again = open_shards([f"{web.url}/{source}"], cache_dir=tmp_path / "cache")
    assert content(again, 0) == content(here, 0)
    assert web.requests["manifest.json"] == 2
    assert max(count for name, count in web.requests.items() if name != "manifest.json") == 1
    assert leftovers(tmp_path) == []


def test_a_shared_file_system_is_staged(served: Path, tmp_path: Path) -> None:
    here = open_shards([served / "set"])
    staged = open_shards([f"file://{served}/set"], cache_dir=tmp_path / "local disk")
    assert staged.is_remote
    assert staged.digest == here.digest
    for number, path in enumerate(here.shard_paths):
        assert content(staged, number) == path.read_bytes()
    assert cached(tmp_path / "local disk") == {path.name for path in here.shard_paths}
    assert leftovers(tmp_path) == []
    with pytest.raises(UserError, match="does not exist"):
        open_shards([f"file://{served}/nothing"], cache_dir=tmp_path / "local disk")


def test_folders_of_the_same_name_are_not_mixed_up(photos: Path, tmp_path: Path) -> None:
    for name, tile in (("a", 32), ("b", 48)):
        pack(photos, tmp_path / "root" / name / "set", tile=tile)
    with serving(tmp_path / "root") as web:
        both = open_shards([f"{web.url}/{{a,b}}/set"], cache_dir=tmp_path / "cache")
        for number, folder in enumerate("ab"):
            assert content(both, number) == (tmp_path / "root" / folder / "set/shard-000000.tar").read_bytes()


def test_data_that_is_packed_again_under_its_old_name_is_fetched_again(photos: Path, tmp_path: Path) -> None:
    for tile in (32, 48):
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        pack(photos, tmp_path / "root" / "set", tile=tile)
        with serving(tmp_path / "root") as web:
            web.url = "http://localhost:" + web.url.rpartition(":")[2]
            shards = open_shards([f"{web.url}/set"], cache_dir=tmp_path / "cache")
            assert content(shards, 0) == (tmp_path / "root/set/shard-000000.tar").read_bytes()


@pytest.mark.parametrize("fault", [503, 500, 429, "cut", "short", "extra", "flip", "html", "silent"])
def test_errors_that_may_pass_are_tried_again(web: WebServer, tmp_path: Path, fault: int | str) -> None:
    file = shard_file(web, tmp_path)
    web.faults[file.path.name] = [fault, fault, 200]
    assert Cache(tmp_path, max_bytes=1 << 20, pause=0.01, timeout=0.5).fetch(file)
    assert file_sha256(file.path) == file.sha256
    assert web.requests[file.path.name] == 3
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (503, "the server answers HTTP 503, 3 tries in 0 s"),
        ("cut", r"sent \d+ of \d+ bytes"),
        ("short", r"sent \d+ of \d+ bytes"),
        ("extra", r"sends more than the \d+ bytes that the manifest says"),
        ("flip", r"has sha256 \w{12}\.\.\., the manifest says \w{12}\.\.\.: it was changed or damaged at its source"),
        ("html", "the server sent a web page instead of the file"),
        ("silent", r"the connection broke \(no answer in time\)"),
    ],
)
def test_errors_that_do_not_pass_are_a_failure_in_one_line(
    web: WebServer, tmp_path: Path, fault: int | str, words: str
) -> None:
    file = shard_file(web, tmp_path)
    web.faults[file.path.name] = [fault]
    with pytest.raises(Failure, match=words) as caught:
        Cache(tmp_path, max_bytes=1 << 20, tries=3, pause=0.01, timeout=0.3).fetch(file)
    assert str(caught.value).startswith(f"{file.url}: ")
    assert "\n" not in str(caught.value)
    assert web.requests[file.path.name] == 3
    assert not file.path.exists()
    assert leftovers(tmp_path) == []


def test_a_wrong_content_length_of_complete_data_is_ignored(web: WebServer, tmp_path: Path) -> None:
    file = shard_file(web, tmp_path)
    web.faults[file.path.name] = ["long"]
    assert Cache(tmp_path, max_bytes=1 << 20).fetch(file)
    assert file_sha256(file.path) == file.sha256


def test_pauses_between_tries_double_up_to_half_a_minute(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("srgan_dist.data.remote.cache.time.sleep", pauses.append)
    file = shard_file(web, tmp_path)
    web.faults[file.path.name] = [503]
    with pytest.raises(Failure, match="10 tries in"):
        Cache(tmp_path, max_bytes=1 << 20, tries=10, pause=1).fetch(file)
    assert len(pauses) == 9
    for pause, middle in zip(pauses, (1, 2, 4, 8, 16, 30, 30, 30, 30), strict=True):
        assert middle / 2 <= pause <= middle * 1.5
    assert len({pause / round(pause, 0) if round(pause) else pause for pause in pauses}) > 5  # jitter


@pytest.mark.parametrize(("code", "words"), [(404, "does not exist"), (403, "access is refused"), (400, "refuses")])
def test_errors_that_cannot_pass_are_reported_at_once(web: WebServer, tmp_path: Path, code: int, words: str) -> None:
    file = shard_file(web, tmp_path)
    file = file._replace(url=file.url + "?key=secret")
    web.faults[file.path.name] = [code]
    with pytest.raises(UserError, match=rf"{file.path.name}\?\*\*\*: .*{words}.*HTTP {code}") as caught:
        Cache(tmp_path, max_bytes=1 << 20).fetch(file)
    assert "secret" not in str(caught.value)
    assert web.requests[file.path.name] == 1
    assert leftovers(tmp_path) == []


def test_a_remote_folder_that_is_missing_or_not_packed_is_named(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{web.url}/other/manifest.json: does not exist \(HTTP 404\)"):
        open_shards([f"{web.url}/other"], cache_dir=tmp_path)
    (web.folder / "bad").mkdir(exist_ok=True)
    (web.folder / "bad/manifest.json").write_text("[]")
    with pytest.raises(UserError, match=rf"^{web.url}/bad/manifest.json: is not a manifest of packed shards"):
        open_shards([f"{web.url}/bad"], cache_dir=tmp_path)
    web.faults["manifest.json"] = ["html"]
    with pytest.raises(Failure, match=r"manifest.json: the server sent a web page instead of the file, 3 tries"):
        open_shards([f"{web.url}/set"], cache_dir=tmp_path)
    web.faults = {"index.npy": ["flip"]}
    with pytest.raises(Failure, match=r"index.npy: has sha256"):
        open_shards([f"{web.url}/set"], cache_dir=tmp_path)
    assert leftovers(tmp_path) == []


def test_offline_is_one_line_after_two_short_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/set"
    with pytest.raises(Failure, match=r"manifest.json: cannot be reached \(Connection refused\), 3 tries") as caught:
        open_shards([url], cache_dir=tmp_path)
    assert len(pauses) == 2
    assert sum(pauses) < 5
    assert "\n" not in str(caught.value)
    with pytest.raises(Failure, match=r"cannot be reached \(\[?.*"):
        open_shards(["https://no-such-host.invalid/set"], cache_dir=tmp_path)


def _fetch_all(url: str, cache: Path, seed: int, results: multiprocessing.Queue[str]) -> None:
    shards = open_shards([url], cache_dir=cache)
    for number in np.random.default_rng(seed).permutation(len(shards.shard_paths)).tolist():
        results.put(f"{number} {len(content(shards, number))}")


def test_four_processes_download_each_shard_once(web: WebServer, served: Path, tmp_path: Path) -> None:
    web.faults = {path.name: ["slow"] for path in (served / "set").glob("*.tar")}
    results: multiprocessing.Queue[str] = FORK.Queue()
    processes = [FORK.Process(target=_fetch_all, args=(f"{web.url}/set", tmp_path, seed, results)) for seed in range(4)]
    for process in processes:
        process.start()
    sizes = [shard.bytes for shard in read_manifest(served / "set").shards]
    found = sorted(results.get(timeout=30) for _ in range(4 * len(sizes)))
    for process in processes:
        process.join(10)
    assert [process.exitcode for process in processes] == [0] * 4
    assert found == sorted(f"{number} {size}" for number, size in enumerate(sizes) for _ in range(4))
    assert {web.requests[path.name] for path in (served / "set").glob("*.tar")} == {1}
    assert web.requests["index.npy"] == 1
    assert leftovers(tmp_path) == []


def test_a_download_whose_process_was_killed_is_taken_over(web: WebServer, tmp_path: Path) -> None:
    file = shard_file(web, tmp_path)
    web.faults[file.path.name] = ["slow", 200]
    cache = Cache(tmp_path, max_bytes=1 << 20)
    process = FORK.Process(target=cache.fetch, args=(file,))
    process.start()
    deadline = time.monotonic() + 60
    while leftovers(tmp_path) != [f"{file.path.name}.part"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert cache.fetch(file, wait=False) is False  # another process is downloading it
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert cache.fetch(file)
    assert file_sha256(file.path) == file.sha256
    assert leftovers(tmp_path) == []


def test_a_fork_does_not_hold_the_locks_of_its_parent(tmp_path: Path) -> None:
    child = FORK.Process(target=time.sleep, args=(20,))
    with locked(tmp_path / ".lock", wait=True):
        child.start()  # has a copy of the locked descriptor
    try:
        with locked(tmp_path / ".lock", wait=False) as again:
            assert again is not None
            with locked(tmp_path / ".lock", wait=False) as other:
                assert other is None
    finally:
        child.kill()
        child.join()


def test_a_damaged_copy_in_the_cache_is_fetched_again(web: WebServer, tmp_path: Path) -> None:
    file = shard_file(web, tmp_path)
    cache = Cache(tmp_path, max_bytes=1 << 20)
    cache.fetch(file)
    os.truncate(file.path, 100)
    cache.fetch(file)
    assert file_sha256(file.path) == file.sha256
    assert web.requests[file.path.name] == 2


def test_changed_pixels_in_the_cache_are_fetched_again(
    web: WebServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = shard_file(web, tmp_path)
    Cache(tmp_path, max_bytes=1 << 20).fetch(file)
    before = file.path.stat()
    with file.path.open("r+b") as changed:
        changed.seek(2000)
        changed.write(b"\1\2\3")
    os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not Cache(tmp_path, max_bytes=1 << 20).touch(file)
    os.close(Cache(tmp_path, max_bytes=1 << 20).open(file))
    assert file_sha256(file.path) == file.sha256
    assert web.requests[file.path.name] == 2
    assert [line for line in caplog.messages if "was changed or damaged in the cache" in line] == [
        f"{file.path}: was changed or damaged in the cache, and is fetched again"
    ]


def test_a_copy_whose_record_is_gone_or_old_is_compared_once_and_kept(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shard_file(web, tmp_path)
    cache = Cache(tmp_path, max_bytes=1 << 20)
    cache.fetch(file)
    compared: list[Path] = []

    def counting(path: Path) -> str:
        compared.append(path)
        return file_sha256(path)

    monkeypatch.setattr("srgan_dist.data.remote.cache.file_sha256", counting)
    record = file.path.with_suffix(".sha256")
    for damage in (record.unlink, lambda: record.write_bytes(b"\xff"), lambda: os.utime(file.path)):
        compared.clear()
        damage()
        for _ in range(3):
            assert cache.fetch(file)
        assert compared == [file.path]
    assert web.requests[file.path.name] == 1


def test_a_read_only_cache_of_another_user_is_read(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shard_file(web, tmp_path)
    cache = Cache(tmp_path, max_bytes=1 << 20)
    cache.fetch(file)
    file.path.with_suffix(".sha256").unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr("srgan_dist.data.remote.cache.locked", None)
    assert cache.fetch(file)


@pytest.mark.parametrize("fault", ["drip", "drip-head"])
def test_a_server_that_drips_is_hung_up_on(web: WebServer, tmp_path: Path, fault: str) -> None:
    file = shard_file(web, tmp_path)
    web.faults[file.path.name] = [fault, 200]
    cache = Cache(tmp_path, max_bytes=1 << 20, pause=0.01, timeout=0.4)
    with pytest.raises(Failure, match=r"the server sent less than 16 KiB a second for 1 s, 1 try$"):
        cache.fetch(file, tries=1)
    assert cache.fetch(file)
    assert leftovers(tmp_path) == []


def test_redirects_stay_on_the_web(web: WebServer, tmp_path: Path) -> None:
    file, other = shard_file(web, tmp_path), shard_file(web, tmp_path, 2)
    web.faults[file.path.name] = [other.url]
    moved = file._replace(bytes=other.bytes, sha256=other.sha256)
    assert Cache(tmp_path, max_bytes=1 << 20).fetch(moved)
    for target in (f"ftp://127.0.0.1:1/{file.path.name}", f"file://{web.folder}/set/manifest.json", file.url):
        web.faults[file.path.name] = [target]
        with pytest.raises(UserError, match=r"redirects to what is no http:// or https:// address, or in a circle"):
            Cache(tmp_path / "other", max_bytes=1 << 20).fetch(file._replace(path=tmp_path / "other/x/a.tar"))


def test_a_manifest_or_an_index_of_600_megabytes_is_refused_by_its_size(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgan_dist.data.shards.folders.MAX_MANIFEST_BYTES", 1000)
    with pytest.raises(UserError, match=r"manifest.json: sends more than 1000 bytes, which no manifest.json of such"):
        open_shards([f"{web.url}/set"], cache_dir=tmp_path)
    monkeypatch.undo()
    samples = read_manifest(web.folder / "set").num_samples
    limit = max_index_bytes(samples)
    index = web.folder / "set/index.npy"
    sound = index.read_bytes()
    index.write_bytes(sound + bytes(600 << 20))
    try:
        with pytest.raises(UserError, match=rf"index.npy: sends more than {limit} bytes, which no index.npy of such"):
            open_shards([f"{web.url}/set"], cache_dir=tmp_path)
    finally:
        index.write_bytes(sound)
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_reported_in_one_line(web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("srgan_dist.data.remote.cache.os.write", full)
    with pytest.raises(Failure, match=r"shard-000001.tar: cannot be written \(No space left on device\): free some"):
        Cache(tmp_path, max_bytes=1 << 20).fetch(shard_file(web, tmp_path))
    monkeypatch.undo()
    assert leftovers(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cache for remote shards cannot be made"):
        open_shards([f"{web.url}/set"], cache_dir=tmp_path / "file")


def test_the_cache_is_bounded_and_evicts_the_least_recently_used(web: WebServer, served: Path, tmp_path: Path) -> None:
    sizes = [shard.bytes for shard in read_manifest(served / "set").shards]
    room = max(sizes) * 4
    cache = Cache(tmp_path, max_bytes=room)
    files = [shard_file(web, tmp_path, number) for number in range(len(sizes))]
    orphan = tmp_path / "set" / "shard-999999.tar.part"
    orphan.parent.mkdir()
    orphan.write_bytes(b"x" * 5000)
    descriptor = cache.open(files[0])
    for number, file in enumerate(files):
        cache.touch(files[1])  # in use all the time
        cache.fetch(file)
        assert sum(path.stat().st_size for path in tmp_path.glob("*/*.tar*")) <= room
        assert cached(tmp_path) >= {file.path.name, files[min(number, 1)].path.name}
    assert not orphan.exists()
    assert not files[0].path.exists()
    assert os.pread(descriptor, sizes[0], 0) == (served / "set" / files[0].path.name).read_bytes()
    os.close(descriptor)
    with pytest.raises(UserError, match=rf"has {sizes[0]} bytes, more than the cache in .* may hold \(100\): enlarge"):
        Cache(tmp_path / "small", max_bytes=100).fetch(files[0]._replace(path=tmp_path / "small/set/a.tar"))


def test_other_downloads_that_fill_the_cache_are_waited_for(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = shard_file(web, tmp_path, 1), shard_file(web, tmp_path, 2)
    assert one.bytes is not None
    assert two.bytes is not None
    cache = Cache(tmp_path, max_bytes=max(one.bytes, two.bytes) + 100)
    web.faults[one.path.name] = ["slow"]
    process = FORK.Process(target=cache.fetch, args=(one,))
    process.start()
    while not leftovers(tmp_path):
        time.sleep(0.01)
    time.sleep(0.05)
    with monkeypatch.context() as patch:
        patch.setattr("srgan_dist.data.remote.cache._ROOM_TIMEOUT", 0.0)
        with pytest.raises(Failure, match="other downloads fill the cache"):
            cache.fetch(two)
    cache.fetch(two)
    process.join(10)
    assert process.exitcode == 0
    assert cached(tmp_path) == {two.path.name}


def test_a_cache_for_less_than_two_shuffle_windows_is_refused(web: WebServer, served: Path, tmp_path: Path) -> None:
    sizes = sorted((shard.bytes for shard in read_manifest(served / "set").shards), reverse=True)
    url, bytes_of_four = f"{web.url}/set", sum(sizes[:4])
    with pytest.raises(UserError) as caught:
        open_shards([url], cache_dir=tmp_path, cache_bytes=bytes_of_four)
    assert str(caught.value) == (
        f"data.cache_size is {bytes_of_four} bytes, but all remote shards together take up to {sum(sizes)}: raise it "
        "to that, or set data.window_shards to at most 2"
    )
    with pytest.raises(UserError, match=rf"two windows of 3 shards take up to {sum(sizes[:6])}: .* at most 2$"):
        open_shards([url], cache_dir=tmp_path, cache_bytes=bytes_of_four, window_shards=3)
    with pytest.raises(UserError, match=r"raise it to that$"):
        open_shards([url], cache_dir=tmp_path, cache_bytes=sizes[0], window_shards=1)
    windowed = open_shards([url], cache_dir=tmp_path, cache_bytes=bytes_of_four, window_shards=2)
    assert windowed.window_shards == 2
    assert windowed.digest == open_shards([url], cache_dir=tmp_path).digest


def test_a_command_runs_once_for_its_index_and_again_when_its_tar_is_evicted(served: Path, tmp_path: Path) -> None:
    tar = served / "set" / "shard-000002.tar"
    ran = tmp_path / "ran"
    command = f"pipe:echo >> {ran}; cat {tar} | cat"
    cache = tmp_path / "cache"
    for _ in range(2):
        shards = open_shards([command], scale=4, cache_dir=cache)
        assert content(shards, 0) == tar.read_bytes()
        assert len(shards) == read_manifest(served / "set").shards[2].samples
    assert ran.read_text() == "\n"
    shards.shard_paths[0].unlink()
    assert content(shards, 0) == tar.read_bytes()
    assert ran.read_text() == "\n\n"
    with pytest.raises(UserError, match=r"^pipe:\w+ \*\*\*: the scale of what a command writes must be given"):
        open_shards([f"{command}"], cache_dir=cache)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "echo begun; echo 'no such bucket' | tr a-z A-Z >&2; exit 3",
            r"^pipe:echo \*\*\*: the command failed with exit code 3 \(NO SUCH BUCKET\): run it by hand",
        ),
        ("exit 1", r"failed with exit code 1 \(no message\)"),
        ("no-such-program", r"failed with exit code 127 \(.*not found\)"),
        ("echo no tar", r"shard-000000.tar: cannot be read as a tar"),
        ("kill -9 $$", r"failed with exit code -9"),
    ],
)
def test_commands_that_fail_are_named_with_their_reason(tmp_path: Path, command: str, words: str) -> None:
    for _ in range(2):  # the second time as well
        with pytest.raises(UserError, match=words) as caught:
            open_shards([f"pipe:{command}"], scale=4, cache_dir=tmp_path)
        assert "\n" not in str(caught.value)
    assert cached(tmp_path) == set()
    assert leftovers(tmp_path) == []


def test_a_command_that_falls_silent_is_ended(tmp_path: Path) -> None:
    # Longer than a test may take: it passes only if the command is ended.
    duration = str(100_000 + os.getpid())
    file = RemoteFile(f"pipe:echo begun; sleep {duration} | cat", tmp_path / "x/a.tar", None, None)
    with pytest.raises(Failure, match=r"^pipe:echo \*\*\*: the command was silent for 0 s, 1 try$"):
        Cache(tmp_path, max_bytes=1 << 20, timeout=0.3).fetch(file, tries=1)
    deadline = time.monotonic() + 60
    while any(process.info["cmdline"] == ["sleep", duration] for process in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < deadline, "a part of its pipeline goes on"
        time.sleep(0.01)
    endless = file._replace(url="pipe:yes")
    with pytest.raises(UserError, match=r"pipe:yes: is larger than the cache \(1048576 bytes\)"):
        Cache(tmp_path, max_bytes=1 << 20).fetch(endless)


def test_a_command_that_writes_other_data_later_is_a_failure(served: Path, tmp_path: Path) -> None:
    source = shutil.copy(served / "set/shard-000001.tar", tmp_path / "a.tar")
    shards = open_shards([f"pipe:cat {source}"], scale=4, cache_dir=tmp_path / "cache")
    shards.shard_paths[0].unlink()
    data = bytearray(Path(source).read_bytes())
    data[700] ^= 1
    Path(source).write_bytes(data)
    shards._cache._tries = 1  # type: ignore[union-attr]
    with pytest.raises(Failure, match="changed or damaged at its source"):
        content(shards, 0)


def test_the_cached_folder_is_a_packed_folder(web: WebServer, served: Path, tmp_path: Path) -> None:
    shards = open_shards([f"{web.url}/set"], cache_dir=tmp_path)
    for number in range(len(shards.shard_paths)):
        shards.fetch(number)
    folder = shards.shard_paths[0].parent
    assert re.fullmatch("[0-9a-f]{16}", folder.name)
    assert json.loads((folder / "manifest.json").read_text()) == json.loads((served / "set/manifest.json").read_text())
    assert open_shards([folder]).digest == shards.digest
