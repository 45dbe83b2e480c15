"""When the discriminator is updated, how a collapse is detected, and the response to it."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from srgan_dist.data.loading.loader import Patches
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.imaging.resize import upscale_bicubic_tensor
from srgan_dist.training.adversarial import split_micro_batches
from srgan_dist.training.batch_quality import BatchQuality
from srgan_dist.training.collapse_monitor import (
    MOST_ROLLBACKS,
    Action,
    Collapsed,
    CollapseMonitor,
    CollapseResponse,
    Limits,
    derived,
)
from srgan_dist.training.discriminator_schedule import DiscriminatorSchedule
from tests.conftest import Train, metrics


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(threads=1)


@dataclass
class Band:
    """A `DiscriminatorSchedule` fed with accuracies of our choice; that on real images is known after an update."""

    runtime: Runtime
    g_per_d: int | None = None
    warmup: int = 0
    band: tuple[float, float] = (0.6, 0.85)
    watches: bool = False
    step: int = 0
    real: Tensor | None = None

    def __post_init__(self) -> None:
        self.schedule = DiscriminatorSchedule(
            g_per_d=self.g_per_d, warmup=self.warmup, band=self.band, watches=self.watches, runtime=self.runtime
        )

    def play(self, *fake: float, real: float = 1.0) -> list[bool]:
        return [self.turn(value, real) for value in fake]

    def turn(self, fake: float, real: float) -> bool:
        self.step += 1
        updates = self.schedule.should_update(
            self.step, fooling_rate=lambda: torch.tensor(1 - fake), real_accuracy=self.real
        )
        if updates:
            self.real = torch.tensor(real)
        return updates


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("warmup", [0, 4])
def test_with_a_fixed_n_d_learns_at_every_nth_step_and_in_warm_up(runtime: Runtime, n: int, warmup: int) -> None:
    band = Band(runtime, g_per_d=n, warmup=warmup)
    expected = [step <= warmup or step % n == 0 for step in range(1, 13)]
    assert band.play(*[1.0] * 6, *[0.0] * 6) == expected
    assert str(band.schedule) == f"{n}:1"


def test_the_band_has_hysteresis(runtime: Runtime) -> None:
    band = Band(runtime)
    # Of generated images 1, 1, 0.9, 0.81, ... are classified rightly, smoothed, and of real ones all. The first is
    # known at the third step; (1 + 0.9 ** k) / 2 is below 0.6 from k = 16 on.
    assert band.play(1.0, 1.0, *[0.0] * 17) == [True, True] + [False] * 16 + [True]
    # From 0.9 ** 17 up by a tenth of what is left: (1 + 1 - (1 - 0.9 ** 17) * 0.9 ** k) / 2 is above 0.85 from k = 10.
    assert band.play(*[1.0] * 12) == [True] * 10 + [False] * 2


def test_a_discriminator_that_calls_everything_generated_has_not_won(runtime: Runtime) -> None:
    assert all(Band(runtime).play(*[1.0] * 30, real=0.0))


def test_between_updates_the_accuracy_on_real_images_is_the_last_one(runtime: Runtime) -> None:
    band = Band(runtime)
    band.play(1.0, 1.0, *[0.9] * 10)
    assert band.schedule.paused
    assert band.schedule.state()["smoothed"]["real"] == 1.0
    band.real = torch.tensor(0.0)  # of an update long ago: it does not count again
    band.play(0.9)
    assert band.schedule.state()["smoothed"]["real"] == 1.0


def test_the_warmup_ignores_the_band(runtime: Runtime) -> None:
    assert Band(runtime, warmup=4).play(*[1.0] * 6) == [True] * 4 + [False] * 2


def test_a_pause_lasts_until_the_accuracy_is_low(runtime: Runtime) -> None:
    band = Band(runtime, g_per_d=2, watches=True)
    assert band.play(*[1.0] * 4) == [False, True, False, True]
    band.schedule.pause()
    # (1 + 0.9 ** k) / 2 is below 0.6 from k = 16 on, and the values of the first 16 steps are known at the 17th.
    assert band.play(*[0.0] * 20) == [False] * 17 + [True, False, True]


def test_a_value_is_read_one_step_later(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    def read_later(values: Tensor) -> Callable[[], list[float]]:
        happened.append("copy begins")

        def read() -> list[float]:
            happened.append("read")
            return values.tolist()

        return read

    monkeypatch.setattr(runtime, "read_later", read_later)
    band = Band(runtime)
    for step in (1, 2):
        happened.append(f"step {step}")
        band.turn(1.0, 1.0)
    assert happened == ["step 1", "copy begins", "step 2", "read", "copy begins"]


def test_the_schedule_resumes_from_its_state(runtime: Runtime) -> None:
    fakes = [*[1.0] * 5, *[0.0] * 22, *[1.0] * 14, *[0.0] * 20, *[1.0] * 9]
    whole = Band(runtime, warmup=1).play(*fakes, real=0.9)
    assert 10 < sum(whole) < 60
    assert sum(before != after for before, after in itertools.pairwise(whole)) >= 2
    for stop in range(1, len(fakes)):
        first = Band(runtime, warmup=1)
        before = first.play(*fakes[:stop], real=0.9)
        second = Band(runtime, warmup=1, step=stop, real=first.real)
        second.schedule.load(json.loads(json.dumps(first.schedule.state())))
        assert before + second.play(*fakes[stop:], real=0.9) == whole


HEALTHY = {
    "d/real_accuracy": 1.0,
    "d/fake_accuracy": 0.7,
    "grad_norm/ratio": 1.0,
    "g/saturated": 0.01,
    "g/psnr_gain": 2.0,
}
LIMITS = Limits(d_accuracy=0.9, grad_ratio=(0.1, 10.0), saturated=0.05, psnr_drop=3.0)


@pytest.mark.parametrize(
    ("sick", "message"),
    [
        ({"d/fake_accuracy": 0.95}, "D is right on 1.000 of real and 0.950 of generated images (limit 0.9)"),
        ({"grad_norm/ratio": 12.5}, "D's gradient is 12.5 times as large as G's (limits 0.1 and 10)"),
        ({"grad_norm/ratio": 0.05}, "D's gradient is 0.05 times as large as G's (limits 0.1 and 10)"),
        ({"g/saturated": 0.25}, "0.250 of G's values are outside of the image range (limit 0.05)"),
        ({"g/psnr_gain": -1.5}, "PSNR is -1.50 dB relative to bicubic's, 3.50 below its best (limit 3)"),
    ],
)
def test_each_limit_is_reported_once_with_its_numbers(sick: dict[str, float], message: str) -> None:
    monitor = CollapseMonitor(LIMITS, patience=3, start=0)
    records = [HEALTHY] * 4 + [HEALTHY | sick] * 6 + [HEALTHY] + [HEALTHY | sick] * 3
    reported = [monitor.observe(10 * step, record) for step, record in enumerate(records, start=1)]
    assert [step for step, line in enumerate(reported, start=1) if line] == [7, 14]
    assert reported[6] == f"the GAN has been collapsing since step 50: {message}"
    none = CollapseMonitor(
        Limits(d_accuracy=None, grad_ratio=None, saturated=None, psnr_drop=None), patience=1, start=0
    )
    assert not any(none.observe(step, record) for step, record in enumerate(records))


def test_one_good_record_among_bad_ones_is_no_collapse() -> None:
    monitor = CollapseMonitor(LIMITS, patience=3, start=0)
    sick = HEALTHY | {"g/saturated": 1.0}
    assert not any(monitor.observe(step, sick if step % 3 else HEALTHY) for step in range(1, 40))


def test_the_best_psnr_is_that_of_pretraining_too_but_not_of_a_single_batch() -> None:
    monitor = CollapseMonitor(LIMITS, patience=3, start=4)
    pretraining = [{"g/psnr_gain": value} for value in (-9.0, -9.0, -9.0, 2.0, 2.5, 12.0, 2.0)]
    assert not any(monitor.observe(step, record) for step, record in enumerate(pretraining, start=-3))
    assert monitor.best == 2.0
    reported = [monitor.observe(step, HEALTHY | {"g/psnr_gain": -1.1}) for step in range(5, 9)]
    assert [bool(line) for line in reported] == [False, False, True, False]


def test_the_monitor_resumes_from_its_state() -> None:
    draw = random.Random(0)
    records = [HEALTHY | {"g/psnr_gain": draw.choice([-4.0, 2.0, 7.0])} for _ in range(60)]
    whole = CollapseMonitor(LIMITS, patience=2, start=3)
    reported = [whole.observe(step, record) for step, record in enumerate(records)]
    assert sum(line is not None for line in reported) > 3
    monitor = CollapseMonitor(LIMITS, patience=2, start=3)
    for step, record in enumerate(records):
        assert monitor.observe(step, record) == reported[step]
        state = json.loads(json.dumps(monitor.state()))
        monitor = CollapseMonitor(LIMITS, patience=2, start=3)
        monitor.load(state)


def stability(runtime: Runtime, action: Action) -> CollapseResponse:
    return CollapseResponse(
        schedule=DiscriminatorSchedule(
            g_per_d=1, warmup=0, band=(0.6, 0.85), watches=action == "pause_d", runtime=runtime
        ),
        monitor=CollapseMonitor(LIMITS, patience=2, start=0),
        action=action,
        is_main=True,
    )


SICK = HEALTHY | {"g/saturated": 1.0}


def collapse(
    keeper: CollapseResponse, *, at: int, roll_back: Callable[[int], Path | None] = lambda _: None
) -> dict[str, Any]:
    """Two bad records; returns the second one as it is written."""
    for step in (at - 1, at):
        record = keeper.observe(step, SICK)
        keeper.respond(step, roll_back)
    return record


def test_warning_changes_nothing(runtime: Runtime) -> None:
    keeper = stability(runtime, "warn")
    reason = "the GAN has been collapsing since step 7: 1.000 of G's values are outside of the image range (limit 0.05)"
    assert collapse(keeper, at=8) == SICK | {"alert": reason}
    assert keeper.observe(9, SICK) == SICK
    assert not keeper.schedule.paused


def test_after_a_collapse_d_pauses_if_so_configured(runtime: Runtime) -> None:
    keeper = stability(runtime, "pause_d")
    collapse(keeper, at=8)
    none = torch.tensor(0.0)
    asked = (keeper.schedule.should_update(n, fooling_rate=lambda: none, real_accuracy=None) for n in range(1, 9))
    assert not any(asked)


def test_a_rollback_goes_to_before_the_first_bad_record(runtime: Runtime) -> None:
    keeper, asked = stability(runtime, "rollback"), list[int]()

    def roll_back(before: int) -> Path:
        asked.append(before)
        return Path("step")

    for number in range(1, MOST_ROLLBACKS + 1):
        collapse(keeper, at=10 * number, roll_back=roll_back)
        assert keeper.d_rate == 0.5**number
    assert asked == [9, 19, 29]
    other = stability(runtime, "rollback")
    other.load(json.loads(json.dumps(keeper.state())))
    assert (other.d_rate, other.rollbacks) == (0.125, 3)
    with pytest.raises(
        Collapsed, match=r"step 40: the GAN has been collapsing since step 39: .*; stopped after 3 rollbacks"
    ):
        collapse(other, at=40, roll_back=roll_back)
    with pytest.raises(Collapsed, match="no checkpoint before step 7"):
        collapse(stability(runtime, "rollback"), at=8)


def test_stop_names_what_to_resume_from(runtime: Runtime) -> None:
    with pytest.raises(Collapsed, match=r"step 8: .*resume from a checkpoint before step 7 with run\.resume=PATH"):
        collapse(stability(runtime, "stop"), at=8)


ALWAYS_ILL = {
    "train.ema_decay": 0.5,
    "train.g_per_d": 1,
    "train.steps": 8,
    "checkpoint.every": 1,
    "checkpoint.keep": 20,
    "loss.perceptual.weight": 0,
    "stability.grad_ratio": "[1e-12, 1e-11]",
    "stability.patience": 2,
}


def part(folder: Path, step: int, name: str) -> Any:
    path = folder / f"checkpoints/step-{step:06d}" / name
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_rolls_back(train: Train, tmp_path: Path, ranks: int) -> None:
    # Two steps of pretraining; bad records at 3 and 4: back to 2; at 5 and 6: back to 4; at 7 and 8: back to 6.
    run = tmp_path / "run"
    done = train(run, ranks=ranks, changes=ALWAYS_ILL | {"stability.on_collapse": "rollback"})
    assert done.code == 0, done.err
    assert f"x {ranks} ranks" in done.err
    assert done.err.count("the GAN has been collapsing since") == 3
    for step, source, rate in ((4, 2, 0.5), (6, 4, 0.25), (8, 6, 0.125)):
        line = f"step {step}: rolled back weights and optimizers to {run}/checkpoints/step-{source:06d}"
        assert f"{line}, D's learning rate is now {rate:g} of the configured one" in done.err
        for name in ("generator", "discriminator", "ema"):
            assert same(part(run, step, f"{name}.safetensors"), part(run, 2, f"{name}.safetensors"))
            assert not same(part(run, step - 1, f"{name}.safetensors"), part(run, 2, f"{name}.safetensors"))
        before, after = (part(run, number, "optimizer_generator.pt") for number in (2, step))
        assert all(same(before["state"][key], after["state"][key]) for key in before["state"])
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["images"] for line in lines] == list(range(4, 36, 4))
    assert len({line["data/digest"] for line in lines}) == 8
    assert [line["step"] for line in lines if "alert" in line] == [4, 6, 8]
    state = json.loads((run / "checkpoints/step-000008/state.json").read_text())
    assert state["world_size"] == ranks
    assert state["averaged"] == 2
    assert (state["stability"]["rollbacks"], state["stability"]["d_rate"]) == (3, 0.125)
    reduced = part(run, 7, "optimizer_discriminator.pt")["param_groups"][0]["lr"]
    assert reduced == pytest.approx(0.25 * part(run, 3, "optimizer_discriminator.pt")["param_groups"][0]["lr"])


@pytest.mark.parametrize(
    ("response", "steps", "message"),
    [
        ("stop", 4, "stopped because of stability.on_collapse: resume from a checkpoint before step 3"),
        ("rollback", 10, "stopped after 3 rollbacks"),
    ],
)
def test_a_collapse_stops_the_run(train: Train, tmp_path: Path, response: str, steps: int, message: str) -> None:
    run = tmp_path / "run"
    done = train(run, changes=ALWAYS_ILL | {"stability.on_collapse": response, "train.steps": 20})
    assert done.code == 1, done.err
    assert done.err.splitlines()[-1].startswith(
        f"srgan-dist: step {steps}: the GAN has been collapsing since step {steps - 1}:"
    )
    assert message in done.err
    assert "Traceback" not in done.err
    assert "alert" in metrics(run)[-1]
    assert metrics(run)[-1]["step"] == steps
    failed = json.loads((run / "failed.json").read_text())
    assert failed["step"] == steps
    assert message in failed["reason"]
    newest = max(path.name for path in (run / "checkpoints").iterdir())
    assert newest == f"step-{steps - 1:06d}"


def test_the_warmup_is_the_discriminators_alone(train: Train, tmp_path: Path) -> None:
    changes = {
        "train.d_warmup_steps": 3,
        "train.g_per_d": 2,
        "train.pretrain_steps": 0,
        "train.ema_decay": 0,
        "checkpoint.every": 1,
        "checkpoint.keep": 20,
        "loss.pixel.weight": 0,
        "loss.perceptual.weight": 0,
        "loss.adversarial.weight": 1,
    }
    run = tmp_path / "run"
    assert train(run, changes=changes).code == 0
    assert [line["d/updates"] for line in metrics(run)] == [1, 2, 3, 4, 4, 5]
    assert [line["g/adversarial"] == 0 for line in metrics(run)] == [True] * 3 + [False] * 3

    def moves(name: str) -> list[bool]:
        weights = [part(run, step, f"{name}.safetensors") for step in range(1, 7)]
        return [not same(before, after) for before, after in itertools.pairwise(weights)]

    assert moves("generator") == [False] * 2 + [True] * 3
    assert moves("discriminator") == [True] * 3 + [False, True]


RESTLESS = ALWAYS_ILL | {
    "stability.on_collapse": "rollback",
    "stability.patience": 12,
    "stability.d_accuracy_band": "[0.5, 0.6]",
    "train.g_per_d": "auto",
    "train.steps": 16,
}


def test_an_adaptive_run_resumes_bit_for_bit(train: Train, tmp_path: Path) -> None:
    whole, copy = tmp_path / "whole", tmp_path / "copy"
    done = train(whole, changes=RESTLESS)
    assert done.code == 0, done.err
    assert "then D is updated until its accuracy is above 0.6, and again when it is below 0.5" in done.err
    lines = metrics(whole)
    updated = [after["d/updates"] > before["d/updates"] for before, after in itertools.pairwise(lines[1:])]
    assert sum(before != after for before, after in itertools.pairwise(updated)) >= 1
    assert [line["step"] for line in lines if "alert" in line] == [14]
    shutil.copytree(whole, copy)
    states = {
        step: json.loads((copy / f"checkpoints/step-{step:06d}/state.json").read_text())["stability"]
        for step in range(3, 14)
    }
    stop = next(step for step, state in states.items() if state["pace"]["paused"])  # from there the state matters
    assert states[stop]["monitor"]["bad"] == stop - 2
    for step in range(stop + 1, 17):
        shutil.rmtree(copy / f"checkpoints/step-{step:06d}")
    done = train(copy, changes=RESTLESS)
    assert f"resumes after step {stop} of 16" in done.err
    for name in ("generator", "discriminator", "ema"):
        assert same(part(whole, 16, f"{name}.safetensors"), part(copy, 16, f"{name}.safetensors"))
    for first, second in zip(lines, metrics(copy), strict=True):
        timed = ("perf/", "time", "hours")
        assert [name for name in first if first[name] != second[name] and not name.startswith(timed)] == []


@pytest.mark.parametrize(("factor", "collapses"), [(1, False), (50, True)])
def test_a_provoked_collapse_is_reported(train: Train, tmp_path: Path, factor: int, collapses: bool) -> None:
    changes = {
        "discriminator.norm": "none",
        "loss.perceptual.weight": 0,
        "loss.pixel.weight": 1,
        "loss.adversarial.weight": 0.05,
        "optimizer.pretrain.learning_rate": 1e-3,
        "optimizer.generator.learning_rate": 1e-3,
        "optimizer.discriminator.learning_rate": factor * 1e-3,
        "train.steps": 90,
        "train.pretrain_steps": 20,
        "train.g_per_d": 1,
        "log.every": 2,
        "checkpoint.every": 1000,
    }
    done = train(tmp_path / "run", changes=changes)
    assert done.code == 0, done.err
    alerts = [line["alert"] for line in metrics(tmp_path / "run") if "alert" in line]
    assert bool(alerts) == collapses
    assert all(alert in done.err for alert in alerts)


def test_quality_is_that_of_the_whole_batch() -> None:
    draw = torch.Generator().manual_seed(0)
    hr = torch.rand(6, 3, 8, 8, generator=draw)
    sr = hr + 0.2 * torch.randn(hr.shape, generator=draw)
    lr = torch.rand(6, 3, 4, 4, generator=draw)
    sr[0, 0, 0, 0], sr[1, 0, 0, 0] = 1.019, 1.021
    batch = [Patches(lr, hr, torch.arange(6))]
    found = BatchQuality()([sr], batch)
    outside = sum(value < -0.02 or value > 1.02 for value in sr.double().flatten().tolist())
    assert outside > 50
    assert found["g/saturated"].item() == pytest.approx(outside / sr.numel(), rel=1e-5)
    for size in (3, 2, 1):
        pieces = BatchQuality()(sr.split(size), split_micro_batches(batch, size))
        assert all(torch.allclose(pieces[name], value) for name, value in found.items())
    record = derived({name: value.item() for name, value in found.items()})
    psnr = float(peak_signal_noise_ratio(sr.clamp(0, 1), hr, data_range=1.0))
    bicubic = float(peak_signal_noise_ratio(upscale_bicubic_tensor(lr, 2).clamp(0, 1), hr, data_range=1.0))
    assert record["g/psnr"] == pytest.approx(psnr, rel=1e-5)
    assert record["g/psnr_gain"] == pytest.approx(psnr - bicubic, rel=1e-4)
    assert record.keys() == {"g/psnr", "g/psnr_gain", "g/saturated"}
    assert derived({"grad_norm/d": 6.0, "grad_norm/g": 2.0})["grad_norm/ratio"] == 3.0
    assert derived({"g/mse": 0.0, "g/mse_bicubic": 1.0})["g/psnr"] == 100
