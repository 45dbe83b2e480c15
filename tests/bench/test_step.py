"""`bench step`: what the peers compute, where time goes, and the command."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from srgan_dist.bench.common.measure import Spread
from srgan_dist.bench.common.timeline import PARTS, Timeline
from srgan_dist.bench.step import step as bench
from srgan_dist.bench.step.child import BASICSR, NOTEBOOK, OURS, peer_networks
from srgan_dist.bench.step.peers import BasicSRStep, Networks, NotebookStep
from srgan_dist.bench.step.report import targets
from srgan_dist.bench.step.step import Bench
from srgan_dist.bench.step.variants import BASICSR_SHAPE, Row, StepBenchOptions, StepReport, Variant, variants
from srgan_dist.config.root import Config
from srgan_dist.training.memory_estimate import peak_bytes
from tests.conftest import call

SMALL: dict[str, Any] = {
    "data": {"patch_size": 32, "batch_size": 4},
    "generator": {"name": "msrresnet", "channels": 8, "blocks": 1},
    "discriminator": {"channels": 4, "norm": "none"},
    "loss": {"perceptual": {"weights": "random", "layer": "conv2_2"}, "pixel": {"weight": 1.0}},
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def networks() -> Networks:
    return peer_networks(Config(**SMALL))


def weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def images() -> tuple[Tensor, Tensor]:
    return torch.rand(4, 3, 8, 8), torch.rand(4, 3, 32, 32)


def test_basicsrs_step_is_an_update_of_each_network_and_of_the_average() -> None:
    made = networks()
    step = BasicSRStep(made)
    lr, hr = images()
    before, average = copy.deepcopy(made), weights(made.generator)
    losses = step.cycle(lr, hr)
    assert len(losses) == 7
    assert all(isinstance(loss, float) for loss in losses)
    # The generator follows the gradient of its loss by the old discriminator, and Adam's first step is its sign.
    sr = before.generator(lr)
    parts = [before.pixel(sr, hr), before.perceptual(sr, hr), before.fooling(sr)]
    assert losses[:3] == pytest.approx([part.item() for part in parts])
    gradients = torch.autograd.grad(torch.stack(parts).sum(), list(before.generator.parameters()))
    moved = weights(made.generator) - weights(before.generator)
    gradient = torch.cat([one.flatten() for one in gradients])
    large = gradient.abs() > 1e-6
    assert torch.equal(moved[large].sign(), -gradient[large].sign())
    torch.testing.assert_close(weights(made.average), 0.999 * average + 0.001 * weights(made.generator))
    assert not torch.equal(weights(made.discriminator), weights(before.discriminator))


def test_the_notebooks_step_computes_the_same_update_at_a_higher_cost() -> None:
    mine, theirs = networks(), networks()
    for network, other in ((mine.generator, theirs.generator), (mine.discriminator, theirs.discriminator)):
        other.load_state_dict(network.state_dict())
    lr, hr = images()
    basicsr, notebook = BasicSRStep(mine), NotebookStep(theirs)
    forwards = 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1

    theirs.generator.register_forward_hook(count)
    basicsr.cycle(lr, hr)
    notebook.cycle(lr, hr)
    assert forwards == 3
    # The first step of Adam does not depend on its betas.
    for network, other in ((mine.generator, theirs.generator), (mine.discriminator, theirs.discriminator)):
        torch.testing.assert_close(weights(other), weights(network), rtol=1e-4, atol=1e-6)


def test_the_notebook_updates_the_generator_n_times_for_each_discriminator_update() -> None:
    made = networks()
    step = NotebookStep(made, g_per_d=3)
    step.cycle(*images())
    updates = [next(iter(adam.state.values()))["step"].item() for adam in (step.for_generator, step.for_discriminator)]
    assert updates == [3, 1]


def test_the_notebook_needs_more_memory() -> None:
    config = Config(**SMALL | {"data": {"patch_size": 128, "batch_size": 4}})

    def bytes_of(kind: str) -> int:
        return peak_bytes(lambda: bench._rehearse(kind, config, 4))

    assert bytes_of(NOTEBOOK) > 1.3 * bytes_of(BASICSR)


def test_each_variant_changes_one_thing() -> None:
    config = Config(**BASICSR_SHAPE)
    found = variants(config, ranks=2)
    assert [variant.kind for variant in found[:3]] == [BASICSR, NOTEBOOK, OURS]
    assert found[-1].ranks == 2
    assert len({variant.name for variant in found}) == len(found)
    keys = {key for variant in found[3:-1] for key in variant.changes}
    assert keys == {"train.precision", "train.channels_last", "train.compile", "train.recompute", "data.micro_batch"}
    for variant in found[3:-1]:
        ((key, value),) = variant.changes.items()
        section, name = key.split(".")
        assert getattr(getattr(config, section), name) != value


class FakeTime:
    """A clock that advances only by `work`."""

    def __init__(self) -> None:
        self.now = 100.0

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr("srgan_dist.bench.common.timeline.time.perf_counter", lambda: clock.now)
    return clock


def test_variants_that_were_not_asked_for_are_left_out() -> None:
    found = variants(Config(**BASICSR_SHAPE), ranks=1, only=["bf16", "NCHW"])
    assert [variant.name for variant in found] == ["BasicSR's step", "bf16", "NCHW"]


def test_time_counts_for_the_part_that_is_at_work(clock: FakeTime) -> None:
    timeline = Timeline(lambda: None)
    timeline.start()
    with timeline.within("data"):
        clock.work(2)
        with timeline.within("optimizer"):
            clock.work(4)
        clock.work(3)
    clock.work(1)
    parts = timeline.stop()
    assert {part: seconds for part, seconds in parts.items() if seconds} == {"data": 5, "optimizer": 4, "other": 1}


def test_a_backward_counts_for_the_network_that_it_runs_through(clock: FakeTime) -> None:
    class Work(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
            clock.work(2)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
            clock.work(5)
            return gradient

    timeline = Timeline(lambda: None)
    generator = timeline.network(Work.apply, "generator")
    discriminator = timeline.network(Work.apply, "discriminator")
    leaf = torch.ones(2, requires_grad=True)
    timeline.start()
    loss = discriminator(generator(generator(leaf))).sum()
    timeline.backward(loss.backward)()
    parts = timeline.stop()
    assert {part: seconds for part, seconds in parts.items() if seconds} == {"generator": 14, "discriminator": 7}


def report(**speed_ups: float) -> StepReport:
    def row(name: str, kind: str, speed_up: float) -> Row:
        return Row(Variant(name, kind), Spread.of([1.0]), Spread.of([speed_up]), 8.0, 8, 1.0, {})

    rows = [row(name.replace("_", " "), OURS, speed_up) for name, speed_up in speed_ups.items()]
    rows.append(row("the notebook's step", NOTEBOOK, 0.5))
    return StepReport(StepBenchOptions(Config(**BASICSR_SHAPE), rounds=1, ranks=1), rows, {})


def test_targets_say_which_promises_were_kept() -> None:
    found = targets(report(as_configured=1.2, bf16=2.1))
    assert [(round(target.value, 2), target.reached) for target in found] == [(1.2, True), (2.1, False), (0.42, True)]
    assert len(targets(report(bf16=2.3))) == 1
    two = report(**{"as_configured": 1.2, "2_ranks": 2.2})
    one_thread = Config(**BASICSR_SHAPE | {"train": {"threads": 1}})
    two = dataclasses.replace(two, options=StepBenchOptions(one_thread, rounds=1, ranks=2))
    assert targets(two)[-1].value == pytest.approx(2.2 / 1.2)
    assert targets(two)[-1].reached


@pytest.mark.slow
@pytest.mark.usefixtures("wide_output")
def test_the_command_measures_in_turns_and_says_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [
        Variant("BasicSR's step", BASICSR),
        Variant("as configured", OURS),
        Variant("fp16", OURS, {"train.precision": "fp16"}),
        Variant("2 ranks", OURS, ranks=2),
    ]
    monkeypatch.setattr("srgan_dist.bench.step.step.variants", lambda *_, **__: chosen)
    options = [f"--data.{key}={value}" for key, value in SMALL["data"].items()]
    options += ["--generator.channels=8", "--generator.blocks=1", "--discriminator.channels=4", "--train.threads=1"]
    options += ["--loss.perceptual.layer=conv2_2", "--train.g_per_d=2"]
    file = tmp_path / "step.json"
    done = call("bench", "step", "--rounds", "2", "--json", file, *options)
    assert done.code == 0, done.err
    content = json.loads(file.read_text())
    rows = {row["way"]: row for row in content["rows"]}
    assert list(rows) == ["BasicSR's step", "as configured", "2 ranks"]
    for row in rows.values():
        assert row["seconds"]["low"] > 0
        assert row["images_per_second"] == pytest.approx(4 / row["seconds"]["median"])
        assert 0.2 < row["peak_gib"] < 4
    for name in ("as configured", "2 ranks"):
        assert set(rows[name]["parts"]) == set(PARTS)
        assert sum(rows[name]["parts"].values()) == pytest.approx(1)
        assert min(rows[name]["parts"][part] for part in ("generator", "discriminator", "perceptual", "optimizer")) > 0
    assert rows["2 ranks"]["parts"]["communication"] > 0
    assert rows["as configured"]["parts"]["communication"] == 0
    assert "needs a GPU" in content["left_out"]["fp16"]
    assert "left out: fp16" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds is 0"),
        (["--ranks", "0"], "--ranks is 0"),
        (["--only", "fp23"], "--only is 'fp23', allowed here are the notebook's step, as configured, bf16"),
        (["--json", "nowhere/file.json"], "there is no folder nowhere"),
        (["--train.stepz=1"], "did you mean train.steps"),
    ],
)
def test_mistakes_are_reported_in_one_line_before_the_work(arguments: list[str], message: str) -> None:
    done = call("bench", "step", *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.lines) == 1


def test_each_variant_of_a_network_that_is_not_ours_is_a_configuration(tmp_path: Path) -> None:
    additional = [{"kind": "lpips", "weight": 1}]
    config = Config(
        generator={"name": "spandrel", "architecture": "SwinIR"},
        loss={"additional": additional},
        data={"patch_size": 96},
    )
    bench = Bench(tmp_path, StepBenchOptions(config, rounds=1, ranks=1))
    for variant in variants(config, ranks=1):
        assert bench.config(variant, tmp_path / "run").loss.learned == []
