"""The loader: the same global batches on any number of ranks and workers, and its processes' ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from srgan_dist.data.loading.loader import (
    BatchStream,
    GlobalBatchSampler,
    make_loader,
    micro_batches,
    to_device,
    turn_all,
    turn_each,
)
from srgan_dist.data.loading.pairs import Batch, PairDataset
from srgan_dist.data.packing.pack import pack
from srgan_dist.data.shards.patch_reader import ShardError
from srgan_dist.data.shards.shard_set import ShardSet, open_shards
from srgan_dist.errors import UserError
from srgan_dist.utils.locks import locked
from tests.data.webserver import WebServer, serving

BATCH = 8


def rank_batches(
    dataset: PairDataset, count: int, *, consumed: int = 0, rank: int = 0, world_size: int = 1, workers: int = 0
) -> list[Batch]:
    """One rank's part of the first `count` global batches."""
    loader = make_loader(
        dataset,
        consumed=consumed,
        batch_size=BATCH,
        rank=rank,
        world_size=world_size,
        workers=workers,
    )
    stream = BatchStream(loader)
    try:
        return list(islice(stream, count))
    finally:
        stream.close()


def digests(per_rank: list[list[Batch]]) -> list[int]:
    """The digest of each global batch, as an all-reduce would sum it."""
    return [int(sum(batch.digest.sum() for batch in step)) for step in zip(*per_rank, strict=True)]


def hr_patches(per_rank: list[list[Batch]]) -> list[torch.Tensor]:
    """The HR patches of each global batch in the order of the stream: rank by rank."""
    return [torch.cat([batch.hr for batch in step]) for step in zip(*per_rank, strict=True)]


@pytest.fixture
def dataset(shards: ShardSet) -> PairDataset:
    return PairDataset(shards, patch_size=24, seed=11)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_any_number_of_ranks_and_workers_gives_the_same_global_batches(
    dataset: PairDataset, world_size: int, workers: int
) -> None:
    count = dataset.num_patches // BATCH + 2  # across the end of an epoch
    assert dataset.num_patches % BATCH  # an epoch ends inside a global batch
    expected = [dataset.at(range(s * BATCH, (s + 1) * BATCH)) for s in range(count)]
    found = [
        rank_batches(dataset, count, rank=rank, world_size=world_size, workers=workers) for rank in range(world_size)
    ]
    assert digests(found) == [int(batch.digest.sum()) for batch in expected]
    for one, other in zip(hr_patches(found), expected, strict=True):
        assert torch.equal(one, other.hr)


@pytest.mark.parametrize("consumed", [0, 8, 5, 10**12 + 3])
def test_the_stream_resumes_at_any_position(dataset: PairDataset, consumed: int) -> None:
    for step, batch in enumerate(rank_batches(dataset, 3, consumed=consumed)):
        start = consumed + step * BATCH
        expected = dataset.at(range(start, start + BATCH))
        assert torch.equal(batch.lr, expected.lr)


def test_resuming_on_another_number_of_ranks_changes_no_batch(dataset: PairDataset) -> None:
    whole = digests([rank_batches(dataset, 6)])
    two = digests([rank_batches(dataset, 2, rank=rank, world_size=2) for rank in range(2)])
    one = digests([rank_batches(dataset, 2, consumed=2 * BATCH)])
    four = digests([rank_batches(dataset, 2, consumed=4 * BATCH, rank=rank, world_size=4) for rank in range(4)])
    assert two + one + four == whole


@pytest.mark.parametrize("drawn", [1, 7, 1024])
def test_each_rank_draws_its_part_of_each_batch_in_order(
    dataset: PairDataset, monkeypatch: pytest.MonkeyPatch, drawn: int
) -> None:
    monkeypatch.setattr("srgan_dist.data.loading.loader._PATCHES_PER_DRAW", drawn)
    sampler = GlobalBatchSampler(dataset.order, consumed=100, batch_size=6, rank=1, world_size=2)
    for number, patches in enumerate(islice(sampler, 400)):
        first = 103 + 6 * number
        for found, expected in zip(patches, dataset.order.patches(range(first, first + 3)), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_micro_batches_share_the_memory_of_their_batch(dataset: PairDataset) -> None:
    batch = dataset.at(range(8))
    micro = batch.split(3)
    assert [len(piece.hr) for piece in micro] == [3, 3, 2]
    for name, whole in batch._asdict().items():
        parts = [getattr(piece, name) for piece in micro]
        assert torch.equal(torch.cat(parts), whole)
        assert {part.untyped_storage().data_ptr() for part in parts} == {whole.untyped_storage().data_ptr()}
    assert all(piece.hr.is_contiguous(memory_format=torch.channels_last) for piece in micro)


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "world_size"), [(8, 3, 1), (8, 2, 3), (8, 16, 1), (0, 1, 1), (8, 0, 1)]
)
def test_a_batch_size_that_micro_batches_do_not_divide_names_both_settings(
    batch_size: int, micro_batch: int, world_size: int
) -> None:
    with pytest.raises(UserError, match=rf"data\.batch_size is {batch_size}, .*data\.micro_batch {micro_batch} x"):
        micro_batches(batch_size=batch_size, micro_batch=micro_batch, world_size=world_size)


@pytest.mark.parametrize(("batch_size", "world_size"), [(8, 3), (4, 8), (0, 1)])
def test_a_batch_size_that_is_no_multiple_of_the_ranks_is_refused(
    dataset: PairDataset, batch_size: int, world_size: int
) -> None:
    with pytest.raises(UserError, match=rf"data\.batch_size is {batch_size}, not a multiple of the {world_size} ranks"):
        GlobalBatchSampler(dataset.order, consumed=0, batch_size=batch_size, rank=0, world_size=world_size)


def test_the_stream_measures_its_wait_and_can_be_closed(dataset: PairDataset) -> None:
    loader = make_loader(dataset, consumed=0, batch_size=8, rank=0, world_size=1, workers=0)
    stream = BatchStream(loader)
    started = time.perf_counter()
    assert len(next(stream).hr) == 8
    assert 0 < stream.wait_seconds < time.perf_counter() - started
    stream.close()
    stream.close()
    assert list(stream) == []


@pytest.mark.parametrize("turn", [turn_each, turn_all])
@pytest.mark.parametrize("code", range(8))
def test_symmetry_flips_then_transposes(code: int, turn: Callable[..., torch.Tensor]) -> None:
    image = torch.arange(2 * 3 * 16).reshape(2, 3, 4, 4)
    expected = image.numpy()
    if code & 1:
        expected = expected[..., ::-1]
    if code & 2:
        expected = expected[..., ::-1, :]
    if code & 4:
        expected = expected.swapaxes(-1, -2)
    found = turn(image, torch.tensor([code, 0]))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], image[1])


@pytest.mark.parametrize("turn", [turn_each, turn_all])
def test_the_eight_symmetries_differ(turn: Callable[..., torch.Tensor]) -> None:
    image = torch.arange(16).reshape(1, 1, 4, 4).repeat(8, 1, 1, 1)
    found = turn(image, torch.arange(8))
    assert len(torch.unique(found.flatten(1), dim=0)) == 8


@pytest.mark.parametrize("channels_last", [True, False])
def test_to_device_gives_floats_in_the_requested_layout(dataset: PairDataset, channels_last: bool) -> None:
    batch = dataset.at(range(8))
    batch = batch._replace(symmetry=torch.zeros(8, dtype=torch.uint8))
    patches = to_device(batch, "cpu", channels_last=channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert torch.equal(patches.key, batch.key)
    for found, source in ((patches.lr, batch.lr), (patches.hr, batch.hr)):
        assert found.dtype == torch.float32
        assert found.is_contiguous(memory_format=layout)
        assert torch.equal(found, source.float() / 255)


def test_a_shard_error_in_a_worker_names_the_shard(dataset: PairDataset) -> None:
    dataset.shards.shard_paths = tuple(Path("/nowhere") / path.name for path in dataset.shards.shard_paths)
    with pytest.raises(ShardError, match=r"^/nowhere/shard-\d{6}.tar: cannot be read \(No such file") as caught:
        rank_batches(dataset, 1, workers=1)
    assert "\n" not in str(caught.value)  # not torch's traceback of the worker


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("harm", ["shrinks", "vanishes"])
def test_a_shard_that_is_damaged_during_training_is_named(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, harm: str
) -> None:
    # A shard that stays open would still be readable, as it should be.
    monkeypatch.setattr("srgan_dist.data.shards.patch_reader._MAX_OPEN", 1)
    folder = shutil.copytree(packed, tmp_path / "copy")
    dataset = PairDataset(open_shards([folder]), patch_size=24, seed=11)
    loader = make_loader(dataset, consumed=0, batch_size=8, rank=0, world_size=1, workers=workers)
    stream = BatchStream(loader)
    next(stream)
    for shard in folder.glob("*.tar"):
        if harm == "shrinks":
            os.truncate(shard, 1000)
        else:
            shard.unlink()
    words = r"member .* at offset \d+: wanted \d+ bytes" if harm == "shrinks" else r"cannot be read \(No such file"
    with pytest.raises(ShardError, match=rf"^{folder}/shard-\d{{6}}\.tar: {words}") as caught:
        deque(islice(stream, 1000), maxlen=0)
    assert "\n" not in str(caught.value)
    stream.close()


@pytest.fixture
def web(photos: Path, tmp_path: Path) -> Iterator[WebServer]:
    """A server with the packed folder `set` of about ten shards."""
    pack(photos, tmp_path / "root/set", scale=4, tile=32, shard_bytes=20_000)
    with serving(tmp_path / "root") as web:
        yield web


def cached(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*/*.tar")}


def remote_dataset(web: WebServer, cache: Path, *, window_shards: int = 2, seed: int = 5) -> PairDataset:
    largest = max(path.stat().st_size for path in (web.folder / "set").glob("*.tar"))
    shards = open_shards(
        [f"{web.url}/set"], window_shards=window_shards, cache_dir=cache, cache_bytes=2 * window_shards * largest
    )
    return PairDataset(shards, patch_size=24, seed=seed)


@pytest.mark.parametrize(("workers", "world_size"), [(0, 1), (2, 1), (0, 2), (1, 2)])
def test_remote_shards_in_shuffle_windows_give_the_local_batches(
    web: WebServer, tmp_path: Path, workers: int, world_size: int
) -> None:
    local = PairDataset(open_shards([web.folder / "set"], window_shards=2), patch_size=24, seed=5)
    remote = remote_dataset(web, tmp_path / "cache")
    count = 2 * local.num_patches // BATCH
    expected = [local.at(range(s * BATCH, (s + 1) * BATCH)) for s in range(count)]
    found = [
        rank_batches(remote, count, rank=rank, world_size=world_size, workers=workers) for rank in range(world_size)
    ]
    assert digests(found) == [int(batch.digest.sum()) for batch in expected]
    for one, other in zip(hr_patches(found), expected, strict=True):
        assert torch.equal(one, other.hr)


def test_the_cache_never_exceeds_its_limit(web: WebServer, tmp_path: Path) -> None:
    dataset, measured = remote_dataset(web, tmp_path / "cache"), 0
    loader = make_loader(dataset, consumed=0, batch_size=BATCH, rank=0, world_size=1, workers=2)
    stream = BatchStream(loader)
    for _ in range(60):
        next(stream)
        with locked(tmp_path / "cache/.lock", wait=True):
            total = 0
            for path in (tmp_path / "cache").glob("*/*.tar*"):
                with suppress(FileNotFoundError):  # a download that another process finished first
                    total += path.stat().st_size
        measured = max(measured, total)
    stream.close()
    limit = dataset.shards._cache.max_bytes  # type: ignore[union-attr]
    assert limit / 2 < measured <= limit


def test_the_next_shuffle_window_is_fetched_while_this_one_is_read(web: WebServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    dataset = remote_dataset(web, cache)
    others = set(threading.enumerate())
    loader = make_loader(dataset, consumed=0, batch_size=1, rank=0, world_size=1, workers=0)
    stream = BatchStream(loader)
    num_windows = until = 0
    for position in range(2 * dataset.num_patches):  # read now, while the previous one is trained on
        before = web.requests.total()
        if position:
            next(stream)
        if position == until:
            shards, until = dataset.order.upcoming_shards(position)
            names = {dataset.shards.shard_paths[shard].name for shard in shards}
            num_windows += 1
            deadline = time.monotonic() + 60
            while not names <= cached(cache):  # without being read, the next window arrives
                assert time.monotonic() < deadline
                time.sleep(0.005)
        else:
            assert web.requests.total() == before  # reading waits for nothing
        assert names <= cached(cache)  # no shard of this and the next window is evicted
    stream.close()
    assert num_windows > 8
    assert len(cached(cache)) < len(dataset.shards.shard_paths)
    deadline = time.monotonic() + 60
    while any("srgan-dist" in thread.name for thread in set(threading.enumerate()) - others):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_ranks_of_a_node_download_each_shard_once(web: WebServer, tmp_path: Path) -> None:
    # The whole set fits: each shard is downloaded once, whichever rank reads it.
    for rank in range(2):
        rank_batches(remote_dataset(web, tmp_path / "cache", window_shards=10), 60, rank=rank, world_size=2, workers=2)
    shards = [path.name for path in (web.folder / "set").glob("*.tar")]
    assert {web.requests[name] for name in shards} == {1}


def test_a_worker_that_waits_for_a_silent_server_is_ended(web: WebServer, tmp_path: Path) -> None:
    dataset = remote_dataset(web, tmp_path / "cache")
    web.faults = {path.name: ["silent"] for path in (web.folder / "set").glob("*.tar")}
    loader = make_loader(dataset, consumed=0, batch_size=8, rank=0, world_size=1, workers=1)
    stream = BatchStream(loader)
    (worker,) = vars(stream._arrays)["_workers"]
    deadline = time.monotonic() + 60
    while not any(name.endswith(".tar") for name in web.requests):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stream.close()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL  # it did not come to an end by itself


@pytest.mark.parametrize("workers", [0, 2])
def test_a_remote_shard_that_vanishes_is_named_in_one_line(web: WebServer, tmp_path: Path, workers: int) -> None:
    dataset = remote_dataset(web, tmp_path / "cache")
    web.faults = {path.name: [404] for path in (web.folder / "set").glob("*.tar")}
    with pytest.raises(UserError, match=rf"^{web.url}/set/shard-\d{{6}}.tar: does not exist \(HTTP 404\)") as caught:
        rank_batches(dataset, 1, workers=workers)
    assert "\n" not in str(caught.value)


PROGRAM = """
    import os, signal
    from srgan_dist.data.shards.shard_set import open_shards
    from srgan_dist.data.loading.loader import BatchStream, make_loader
    from srgan_dist.data.loading.pairs import PairDataset

    dataset = PairDataset(open_shards([FOLDER]), patch_size=24, seed=0)
    loader = make_loader(
        dataset, consumed=0, batch_size=8, rank=0, world_size=1, workers=2
    )
    received = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: received.append(number))
    stream = BatchStream(loader)
"""


def run_program(folder: Path, rest: str) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent(PROGRAM).replace("FOLDER", repr(str(folder))) + textwrap.dedent(rest)
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,  # signals to the group reach this program and its workers only
        check=False,
    )


def test_signals_to_the_whole_process_group_do_not_end_the_workers(packed: Path) -> None:
    done = run_program(
        packed,
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.killpg(0, number)  # at once, while the workers are still starting
        for _ in range(40):
            next(stream)
            os.killpg(0, signal.SIGTERM)
        print(len(set(received)), "signals, 40 batches")
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 signals, 40 batches\n", "")


def test_a_program_that_fails_ends_its_workers(packed: Path) -> None:
    done = run_program(packed, "next(stream)\n1 / 0\n")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_program_whose_worker_dies_holding_a_lock_ends_too(packed: Path) -> None:
    """A worker that is killed while it asks whether it is done never releases the lock of that question."""
    done = run_program(
        packed,
        """
        import multiprocessing
        stream._arrays._workers_done_event._cond.acquire()
        multiprocessing.active_children()[0].kill()
        while True:
            next(stream)
        """,
    )
    assert done.returncode == 1
    assert "Failure: a loader worker was killed by SIGKILL" in done.stderr


def test_a_program_whose_worker_dies_ends_too(packed: Path) -> None:
    done = run_program(
        packed,
        """
        import multiprocessing
        multiprocessing.active_children()[0].kill()
        while True:
            next(stream)
        """,
    )
    assert done.returncode == 1
    assert "Failure: a loader worker was killed by SIGKILL" in done.stderr
