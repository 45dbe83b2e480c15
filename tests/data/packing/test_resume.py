"""Packing that is killed, interrupted, repeated, and spread over processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.packing.pack import pack
from srgan_dist.data.packing.workers import start_workers
from srgan_dist.data.shard_format.manifest import read_manifest
from srgan_dist.errors import Failure, UserError
from tests.conftest import call, environment

Maker = Callable[..., NDArray[np.uint8]]

NUM_IMAGES = 24
OPTIONS = ["--tile", "64", "--shard-size", "120KB", "--encoding", "png", "--validation-fraction", "0.2"]


def pack_here(images: Path, out: Path, **options: object) -> None:
    pack(
        images,
        out,
        tile=64,
        shard_bytes=120_000,
        encoding="png",
        validation_fraction=0.2,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, make_image: Maker) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in range(NUM_IMAGES):
        Image.fromarray(make_image(150 + number, 170, number)).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def reference(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    pack_here(images, out)
    return out


def assert_same(one: Path, other: Path) -> None:
    names = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        if (one / name).is_file():
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def command(images: Path, out: Path, *options: str) -> list[str]:
    program = str(Path(sys.executable).with_name("srgan-dist"))
    return [program, "pack", str(images), str(out), *OPTIONS, *options]


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.tar")}


def unchanged(folder: Path, before: dict[str, tuple[int, int]]) -> set[str]:
    return {name for name, state in states(folder).items() if before.get(name) == state}


def journal(partial: Path) -> list[str]:
    path = partial / "progress.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(status.parent.name), *children(int(status.parent.name))]
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_pack_resumes_to_the_same_bytes(images: Path, reference: Path, tmp_path: Path, workers: int) -> None:
    partial = tmp_path / "out.partial"
    arguments = command(images, tmp_path / "out", "--workers", str(workers))
    process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE)
    wait_until(lambda: len(journal(partial)) >= 3)
    helpers = children(process.pid)
    assert (len(helpers) >= 3) == (workers == 3)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in helpers))  # no orphans
    assert not (tmp_path / "out").exists()
    num_kept = len(journal(partial))
    assert 3 <= num_kept < len(read_manifest(reference).shards)
    kept = states(partial)
    done = call(*arguments[1:])
    assert done.code == 0, done.err
    assert f"resumes after {num_kept} of {num_kept} shards" in done.err
    assert_same(tmp_path / "out", reference)
    assert not partial.exists()
    assert {f"shard-{number:06d}.tar" for number in range(num_kept)} <= unchanged(tmp_path / "out", kept)
    again = call(*arguments[1:])
    assert again.code == 0
    assert "already packed" in again.err


def test_the_number_of_workers_does_not_change_a_byte(images: Path, reference: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    before = set(multiprocessing.active_children())
    pack_here(images, tmp_path / "out", workers=3, on_progress=lambda done, total: calls.append((done, total)))
    assert_same(tmp_path / "out", reference)
    total = NUM_IMAGES - read_manifest(reference).num_validation
    assert calls == [(done, total) for done in range(1, total + 1)]
    assert not set(multiprocessing.active_children()) - before  # other tests may have left their own


class Stop(Exception):
    pass


def interrupted_after(images: Path, out: Path, num_images: int) -> Path:
    def stop(done: int, _total: int) -> None:
        if done == num_images:
            raise Stop

    with pytest.raises(Stop):
        pack_here(images, out, on_progress=stop)
    return out.with_name(f"{out.name}.partial")


@pytest.mark.parametrize("num_images", [5, 11, 18])
def test_a_pack_resumes_wherever_it_was_stopped(images: Path, reference: Path, tmp_path: Path, num_images: int) -> None:
    partial = interrupted_after(images, tmp_path / "out", num_images)
    assert len(journal(partial)) > 1
    pack_here(images, tmp_path / "out")
    assert_same(tmp_path / "out", reference)


@pytest.mark.parametrize("damage", ["torn journal", "no journal", "short shard", "lost shard", "no plan"])
def test_damaged_shards_are_packed_again(images: Path, reference: Path, tmp_path: Path, damage: str) -> None:
    partial = interrupted_after(images, tmp_path / "out", 11)
    path = partial / "progress.jsonl"
    match damage:
        case "torn journal":
            path.write_bytes(path.read_bytes()[:-7])
        case "no journal":
            path.unlink()
        case "short shard":
            os.truncate(partial / "shard-000001.tar", 1000)
        case "lost shard":
            (partial / "shard-000000.tar").unlink()
        case "no plan":
            (partial / "pack.json").unlink()
    (partial / "shard-000099.tar.writing").touch()
    pack_here(images, tmp_path / "out")
    assert_same(tmp_path / "out", reference)


def test_shards_before_a_changed_image_are_kept(images: Path, tmp_path: Path, make_image: Maker) -> None:
    copy = shutil.copytree(images, tmp_path / "copy")
    partial = interrupted_after(copy, tmp_path / "out", 18)
    lines = [json.loads(line) for line in journal(partial)]
    training = sorted(set(range(NUM_IMAGES)) - {int(path.stem) for path in _held_out(copy, tmp_path)})
    changed = lines[3]["image"]
    Image.fromarray(make_image(140, 90, 99)).save(copy / f"{training[changed]:02d}.png")
    kept = states(partial)
    pack_here(copy, tmp_path / "out")
    assert len(unchanged(tmp_path / "out", kept)) == sum(line["image"] < changed for line in lines) > 0
    pack_here(copy, tmp_path / "fresh")
    assert_same(tmp_path / "out", tmp_path / "fresh")


def _held_out(images: Path, tmp_path: Path) -> Iterator[Path]:
    pack_here(images, tmp_path / "for-held-out")
    return (tmp_path / "for-held-out" / "validation").iterdir()


def test_a_pack_with_other_options_is_refused(images: Path, reference: Path, tmp_path: Path) -> None:
    interrupted_after(images, tmp_path / "out", 11)
    with pytest.raises(UserError, match=r"out.partial: a pack with tile 64, not 48 was interrupted there"):
        pack(images, tmp_path / "out", tile=48, shard_bytes=120_000, encoding="png", validation_fraction=0.2)
    assert journal(tmp_path / "out.partial")
    with pytest.raises(UserError, match=r"out: was packed with tile 64, not 480: choose another name"):
        pack(images, reference, shard_bytes=120_000, encoding="png", validation_fraction=0.2)


def test_a_finished_pack_is_left_as_it_is_and_refuses_other_images(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, make_image: Maker
) -> None:
    copy = shutil.copytree(images, tmp_path / "copy")
    pack_here(copy, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    (tmp_path / "out" / "progress.jsonl").touch()  # killed between the last two steps
    caplog.set_level("INFO", logger="srgan_dist")
    pack_here(copy, tmp_path / "out")
    assert "already packed" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    Image.fromarray(make_image(64, 64)).save(copy / "new.png")
    with pytest.raises(UserError, match="was packed from other images"):
        pack_here(copy, tmp_path / "out")


def test_two_packs_into_one_folder_at_once_are_refused(images: Path, tmp_path: Path) -> None:
    messages: list[str] = []

    def try_too(_done: int, _total: int) -> None:
        if not messages:
            with pytest.raises(UserError) as caught:
                pack_here(images, tmp_path / "out")
            messages.append(str(caught.value))

    pack_here(images, tmp_path / "out", on_progress=try_too)
    assert re.search(rf"out.partial: is being packed by process {os.getpid()} on \S+, since ", messages[0])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


ROUNDS = 40


def test_of_packs_started_together_one_makes_the_folder_and_none_disturbs_it(images: Path, tmp_path: Path) -> None:
    """Forty times, three at once: the winner's folder is whole, the losers say so in one line or find it packed."""
    context = multiprocessing.get_context("forkserver")
    small = tmp_path / "small"
    small.mkdir()
    shutil.copy(min(images.iterdir()), small)
    barrier, outcomes = context.Barrier(3), context.SimpleQueue()
    packs = [context.Process(target=pack_at_once, args=(barrier, small, tmp_path, outcomes)) for _ in range(3)]
    for process in packs:
        process.start()
    succeeded: list[list[bool]] = [outcomes.get() for _ in packs]
    for process in packs:
        process.join(60)
        assert process.exitcode == 0
    for number, attempts in enumerate(zip(*succeeded, strict=True)):
        assert any(attempts)
        assert call("check", tmp_path / f"out{number}").code == 0
        assert not (tmp_path / f"out{number}.partial").exists()
    assert not all(map(all, succeeded))  # some were refused: they did meet


def pack_at_once(barrier: Any, images: Path, folder: Path, outcomes: Any) -> None:
    """Pack in every round at the same moment as the others; report which rounds were not refused."""
    succeeded = []
    for number in range(ROUNDS):
        barrier.wait()
        try:
            pack(images, folder / f"out{number}", scale=4)
            succeeded.append(True)
        except UserError:
            succeeded.append(False)
    outcomes.put(succeeded)


def test_a_full_disk_keeps_the_finished_shards(images: Path, reference: Path, tmp_path: Path) -> None:
    count = 0
    real = os.fsync

    def no_space(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > 20:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", no_space)
        with pytest.raises(UserError, match=r"No space left on device.*make room and run the same command again"):
            pack_here(images, tmp_path / "out")
    assert journal(tmp_path / "out.partial")
    pack_here(images, tmp_path / "out")
    assert_same(tmp_path / "out", reference)


def end_process(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_is_reported() -> None:
    with start_workers(2) as pool, pytest.raises(Failure, match="a worker process was killed"):
        list(pool.map(end_process, range(20)))


def test_few_items_are_in_progress_at_a_time() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken = number + 1
            yield number

    with start_workers(2) as pool:
        results = pool.map(abs, items())
        assert [next(results) for _ in range(10)] == list(range(10))
        assert taken <= 10 + 2 * 2
        results.close()  # type: ignore[attr-defined]
