from __future__ import annotations

import gc
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image

from srgan_dist.bench.common.images import choose_images, make_images
from srgan_dist.bench.common.measure import Rate, Spread, measure
from srgan_dist.bench.loader.loader import (
    PNG,
    RAW,
    STREAM,
    LoaderBenchOptions,
    Row,
    bench_loader,
    read_methods,
    worker_counts,
)
from srgan_dist.bench.loader.peers import PatchShape
from srgan_dist.bench.loader.report import ratios
from srgan_dist.bench.loader.startup import start_up
from srgan_dist.bench.loader.wait import data_wait, read_wait
from srgan_dist.data.shard_format.encodings import ENCODINGS
from srgan_dist.errors import UserError
from tests.conftest import call, photo

SMALL = ("--patch-size", "48", "--batch-size", "4", "--seconds", "0.05", "--workers", "1")


@pytest.fixture
def abandoned_files() -> Iterator[None]:
    """webdataset leaves the tar that it was reading open for the garbage collector: to be collected here."""
    yield
    gc.collect()


@pytest.mark.usefixtures("abandoned_files")
@pytest.mark.filterwarnings("ignore:unclosed file .*shard-:ResourceWarning")
def test_every_method_cuts_aligned_patches(tmp_path: Path) -> None:
    """HR images of 4x4 blocks in one colour: however a pair is turned, HR determines LR."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(photo(40, 36 + number, number).repeat(4, 0).repeat(4, 1)).save(folder / f"{number}.png")
    patches = PatchShape(size=32, scale=4, batch=8)
    methods, left_out = read_methods(tmp_path, patches, on_progress=lambda _: None)
    assert len(methods) == 2 * len(ENCODINGS) + 4 - len(left_out)
    for method in methods:
        with closing(method.read(0)) as batches:
            for lr, hr, *_ in islice(batches, 5):
                assert lr.shape == (8, 3, 8, 8)
                assert hr.shape == (8, 3, 32, 32)
                one = 1 if hr.dtype.is_floating_point else 255
                assert (hr.dtype == torch.uint8) == (method.batches == "uint8")
                assert lr.max() > one / 2
                blocks = torch.nn.functional.avg_pool2d(hr.float(), 4)
                error = (blocks / one - lr.float() / one).abs()
                # The bicubic kernel looks beyond the block; another place or turn would differ by a third.
                assert error.mean() < 0.06, method


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def stream(action: Any, seconds: float) -> Iterator[tuple[torch.Tensor]]:
    while True:
        action(seconds)
        yield (torch.empty(10),)


def test_a_core_is_charged_for_what_it_works_not_for_what_it_waits() -> None:
    busy = measure(stream(burn, 0.01), seconds=0.5, warm_batches=1)
    assert 700 < busy.core.median < 1050
    idle = measure(stream(time.sleep, 0.01), seconds=0.5, warm_batches=1)
    assert idle.wall.median < 1000
    assert idle.core.median > 3 * idle.wall.median
    assert busy.wall.low <= busy.wall.median <= busy.wall.high


def test_the_work_of_children_counts() -> None:
    alone = measure(stream(time.sleep, 0.05), seconds=2.0, warm_batches=1)  # sleeping costs next to nothing
    child = multiprocessing.get_context("spawn").Process(target=burn, args=(600.0,), daemon=True)
    child.start()
    try:
        while psutil.Process(child.pid).cpu_times().user < 3:  # it has loaded what it needs, and burns
            time.sleep(0.1)
        together = measure(stream(time.sleep, 0.05), seconds=2.0, warm_batches=1)
    finally:
        child.kill()
        child.join()
    # The child gets a tenth of a core even on a machine that others use.
    assert together.core.median < alone.core.median / 2


def test_the_warm_up_is_not_timed() -> None:
    def slow_at_first() -> Iterator[tuple[torch.Tensor]]:
        for number in range(10**6):
            time.sleep(0.1 if number < 5 else 0.001)
            yield (torch.empty(1),)

    assert measure(slow_at_first(), seconds=0.2, warm_batches=5).wall.low > 15  # 10 if the first ones counted


@pytest.mark.parametrize(
    ("most", "expected"), [(0, (0,)), (1, (0, 1)), (2, (0, 1, 2)), (6, (0, 1, 2, 4, 6)), (8, (0, 1, 2, 4, 8))]
)
def test_worker_counts_double_up_to_the_most(most: int, expected: tuple[int, ...]) -> None:
    assert worker_counts(most) == expected


def test_made_images_compress_like_photographs_and_repeat(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        make_images(tmp_path / name, count=1)
    one, other = (sorted((tmp_path / name).iterdir()) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    with Image.open(one[0]) as image:
        image.crop((0, 0, 480, 480)).save(tmp_path / "tile.png")
    assert 0.25 < (tmp_path / "tile.png").stat().st_size / (480 * 480 * 3) < 0.5  # 0.38 in data/train/photos


def test_chosen_images_are_large_enough_and_not_too_many(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "links"
    source.mkdir()
    folder.mkdir()
    Image.fromarray(photo(40, 60)).save(source / "small.png")
    for number in range(5):
        Image.new("RGB", (480 * 8, 480 * 8)).save(source / f"{number}.png")
    chosen = choose_images(source, folder, patch_size=48)
    assert len(chosen) == 2  # of 64 tiles each
    assert sorted(path.resolve() for path in folder.iterdir()) == sorted(chosen)


def test_ratios_take_the_best_number_of_workers_of_each() -> None:
    def row(name: str, batches: str, workers: int, wall: float, core: float) -> Row:
        return Row(name, batches, workers, Rate(Spread.of([wall]), Spread.of([core]), 1))

    rows = [
        row(RAW, "uint8", 0, 100, 100),
        row(RAW, "uint8", 2, 150, 75),
        row(RAW, "float on cpu", 0, 60, 60),
        row("srgan-dist, png", "uint8", 0, 9, 9),
        row(PNG, "float", 0, 2, 2),
        row(PNG, "float", 2, 3, 1),
        row(STREAM, "uint8", 0, 5, 20),
    ]
    assert [tuple(ratio) for ratio in ratios(rows)] == [
        ("uint8", PNG, 50, 50, 40),
        ("uint8", STREAM, 5, 30, 10),
        ("float on cpu", PNG, 30, 20, None),
        ("float on cpu", STREAM, 3, 12, None),
    ]


def test_the_first_lap_of_a_training_does_not_count(tmp_path: Path) -> None:
    laps = [(0.9, 1.0), (0.01, 200.0), (0.03, 100.0), (0.02, 400.0)]
    lines = [json.dumps({"perf/data_wait": wait, "perf/images_per_second": speed}) for wait, speed in laps]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    wait = read_wait(tmp_path / "metrics.jsonl", PatchShape(size=48, scale=4, batch=4))
    assert wait.percent == pytest.approx((2, 1, 3))
    assert wait.step_ms == pytest.approx((20, 10, 40))


def test_what_it_takes_to_open_a_million_samples_is_measured(tmp_path: Path) -> None:
    (start,) = start_up(tmp_path, [10**6])
    assert start.shards == 1000
    assert start.seconds > 0  # how much is tests/data/test_start.py's to limit
    assert 4 < start.mib < 50  # the order holds 8 MB of its own


@pytest.mark.slow
@pytest.mark.usefixtures("abandoned_files", "wide_output")
@pytest.mark.filterwarnings("ignore:unclosed file .*shard-:ResourceWarning")
def test_the_command_measures_everything_and_says_what_it_left_out(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgan_dist.bench.loader.loader.SIZES", (2500,))
    monkeypatch.setattr("srgan_dist.bench.loader.loader.data_wait", partial(data_wait, steps=20))
    file = tmp_path / "loader.json"
    done = call("bench", "loader", "--images", images, *SMALL, "--json", file)
    assert done.code == 0, done.err
    content = json.loads(file.read_text())
    rates = {(rate["way"], rate["batches"], rate["workers"]): rate for rate in content["rates"]}
    for workers in (0, 1):
        for encoding in ENCODINGS:
            assert rates[f"srgan-dist, {encoding}", "uint8", workers]["per_core"]["median"] > 0
        assert rates[STREAM, "uint8", workers]["repeats"] > 1
    for rate in rates.values():
        assert 0 < rate["per_second"]["low"] <= rate["per_second"]["median"] <= rate["per_second"]["high"]
    measured = {way for way, _, _ in rates}
    assert len(measured | set(content["left_out"])) == len(ENCODINGS) + 4
    assert all(why in done.out for why in content["left_out"])
    assert content["machine"]["cores"] >= 1
    assert content["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert content["data_wait"]["step_ms"]["median"] > 0
    assert 0 <= content["data_wait"]["percent"]["low"] < 100
    assert content["start_up"][0] | {"seconds": 0, "mib": 0} == {"samples": 2500, "shards": 3, "seconds": 0, "mib": 0}
    assert 0 < content["start_up"][0]["seconds"] < 2
    assert "start-up with 2,500 samples in 3 shards" in done.out
    assert "6 images, 6 tiles" in content["images"]
    against = {ratio["peer"]: ratio for ratio in content["ratios"] if ratio["batches"] == "uint8"}
    assert (against[PNG]["target"], against[STREAM]["target"]) == (40, 10)
    assert all(way in done.out for way in measured)
    assert "a training step waits for its data" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patch-size", "50"], "--patch-size is 50, allowed are multiples of --scale 4 up to 480"),
        (["--patch-size", "484"], "--patch-size is 484"),
        (["--scale", "0"], "--scale is 0"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--workers", "-1"], "--workers is -1"),
        (["--seconds", "0"], "--seconds is 0.0"),
        (["--seconds", "nan"], "--seconds is nan"),
        (["--images", "nowhere"], "nowhere: does not exist"),
        (["--json", "nowhere/file.json"], "there is no folder nowhere"),
        (["--json", "."], "it is a folder"),
    ],
)
def test_mistakes_are_reported_in_one_line_before_the_work(arguments: list[str], message: str) -> None:
    done = call("bench", "loader", *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.lines) == 1


def test_images_that_are_all_too_small(images: Path) -> None:
    options = LoaderBenchOptions(
        images, PatchShape(size=128, scale=4, batch=1), workers=(0,), seconds=1, training=False
    )
    with pytest.raises(UserError, match="no image has 128 pixels a side"):
        bench_loader(options, on_progress=lambda _: None)
