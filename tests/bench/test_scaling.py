"""`bench scaling`: the model against values computed by hand and against DDP itself, and two measured ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.nn.parallel import DistributedDataParallel

from srgan_dist.bench.common.measure import Spread
from srgan_dist.bench.scaling.child import Facts, ObservedRuntime
from srgan_dist.bench.scaling.interconnect import (
    Arrival,
    Cost,
    Interconnect,
    Link,
    buckets,
    fit,
    reduction,
    ring,
    tree,
)
from srgan_dist.bench.scaling.report import to_table
from srgan_dist.bench.scaling.scaling import Measured, ScalingBenchOptions, ScalingReport, predict
from srgan_dist.config.root import Config
from srgan_dist.utils.units import parse_bandwidth, parse_seconds
from tests.conftest import call

LINK = Link(latency=1e-3, bandwidth=1e9)


def test_a_ring_and_a_tree_cost_what_they_cost_by_hand() -> None:
    assert ring(LINK, 1e9, 4) == pytest.approx(6e-3 + 1.5)  # 6 hops of a quarter
    assert ring(LINK, 1e9, 2) == pytest.approx(2e-3 + 1.0)
    assert tree(LINK, 1e9, 5) == pytest.approx(6e-3 + 2.0)  # 3 hops up, 3 down
    assert ring(LINK, 1e9, 1) == tree(LINK, 1e9, 1) == 0


def test_nodes_reduce_within_and_then_between_by_the_faster_algorithm() -> None:
    wires = Interconnect(LINK, within=Link(1e-6, 1e10), per_node=4)
    assert wires.all_reduce(1e9, 4) == pytest.approx(6e-6 + 0.15)
    assert wires.all_reduce(8, 4) == pytest.approx(4e-6, rel=1e-3)
    assert wires.all_reduce(1e9, 2) == pytest.approx(2e-6 + 0.1)
    assert wires.all_reduce(1e9, 12) == pytest.approx(6e-6 + 0.15 + 4e-3 + 4 / 3)  # three nodes in a ring
    flat = Interconnect(LINK)
    assert flat.all_reduce(8, 1024) == pytest.approx(20e-3, rel=1e-4)  # a tree of ten levels, not 2046 hops
    assert flat.all_reduce(1e10, 4) == pytest.approx(15.006)


def test_a_reduction_hides_behind_the_backward_pass() -> None:
    filled = [Arrival(100, 3.0), Arrival(200, 1.5), Arrival(100, 0.0)]

    def seconds(num_bytes: float) -> float:
        return num_bytes / 100

    # From -3 to -2, from -1.5 to 0.5, and the last has to wait for it: to 1.5.
    assert reduction(filled, seconds, overlaps=True) == Cost(4.0, 1.5)
    assert reduction(filled, seconds, overlaps=False) == Cost(4.0, 4.0)
    assert reduction(filled[:1], seconds, overlaps=True) == Cost(1.0, 0.0)
    assert reduction([], seconds, overlaps=True) == Cost(0.0, 0.0)


def test_the_fit_finds_the_link() -> None:
    link = Link(3e-5, 2.5e9)
    found = fit([(size, ring(link, size, 4)) for size in (8, 10_000, 10_000_000)], ranks=4)
    assert found == pytest.approx(link)
    assert fit([(1000, 1e-6), (2000, 2.1e-6)], ranks=2).latency == 0  # never below


def test_buckets_are_those_of_ddp() -> None:
    network = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(9)], nn.Linear(1024, 100))
    arrivals: list[Arrival] = []

    def arrives(gradient: Tensor) -> None:
        arrivals.append(Arrival(gradient.numel() * gradient.element_size(), 0.0))

    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(arrives)
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(network)
        for _ in range(3):  # DDP arranges its buckets after the first, and reports it after the next
            arrivals.clear()
            wrapped(torch.zeros(1, 1024)).sum().backward()
        theirs = wrapped._get_ddp_logging_data()["rebuilt_bucket_sizes"]
    finally:
        dist.destroy_process_group()
    ours = [bucket.num_bytes for bucket in buckets(arrivals)]
    assert len(ours) > 2
    assert ", ".join(map(str, ours)) == theirs


def options(
    *, strong: bool = False, step_seconds: float | None = None, gpus: tuple[int, ...] = (4,)
) -> ScalingBenchOptions:
    config = Config(data={"batch_size": 8}, train={"g_per_d": 2})
    return ScalingBenchOptions(config, [2], 1, strong, gpus, Interconnect(LINK), step_seconds)


# The generator's two gradients come at once, half a second and no time before the end; one is DDP's first bucket.
FACTS = Facts([[Arrival(2**20, 0.5), Arrival(10**8, 0.1)], [Arrival(10**9, 0.0)]], votes=1, norms=10)


def test_many_ranks_are_predicted_as_by_hand() -> None:
    ((four,), left_out) = predict(options(), 2.0, FACTS)
    small = 4e-3 + 16e-9  # a tree
    generator = 6e-3 + 0.15 - 0.1  # the large bucket; the small one is long over
    discriminator = (6e-3 + 1.5) / 2  # every second step
    assert four.gradients.exposed == pytest.approx(generator + discriminator)
    assert four.gradients.total == pytest.approx(6e-3 + 1.5 * 2**20 / 1e9 + 6e-3 + 0.15 + discriminator, rel=0.01)
    assert four.seconds == pytest.approx(2 + generator + discriminator + 11 * small)
    assert four.efficiency == pytest.approx(2 / four.seconds)
    assert (four.batch, left_out) == (32, {})


def test_a_step_measured_elsewhere_has_less_time_to_hide_behind() -> None:
    ((slow,), _), ((fast,), _) = predict(options(), 2.0, FACTS), predict(options(step_seconds=0.2), 2.0, FACTS)
    assert fast.compute == pytest.approx(0.2)
    assert fast.gradients.exposed == pytest.approx(slow.gradients.exposed + 0.09)  # 0.01 s before the end, not 0.1


def test_a_shared_batch_ends_where_it_cannot_be_divided() -> None:
    found, left_out = predict(options(strong=True, gpus=(2, 8, 16)), 2.0, FACTS)
    assert [(row.ranks, row.batch, row.compute) for row in found] == [(2, 8, 1.0), (8, 8, 0.25)]
    assert left_out == {16: "a batch of 8 is not a multiple of it"}


def test_a_prediction_that_is_far_off_gets_a_note() -> None:
    def row(ranks: int, predicted: float) -> Measured:
        second = Spread.of([1.0])
        return Measured(ranks, second, second, 0.1, LINK, predicted)

    console = Console(width=200)
    with console.capture() as capture:
        console.print(to_table(ScalingReport(options(), [row(1, 1.0), row(2, 1.14), row(4, 0.84)], [], {}, FACTS)))
    text = capture.get()
    assert "note: 4 ranks: the prediction is off by -16 %" in text
    assert "note: 2 ranks" not in text


def test_what_a_step_communicates_is_counted() -> None:
    runtime = ObservedRuntime(threads=1)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    runtime.prepare(network, torch.optim.SGD(network.parameters(), lr=0.1))
    for _ in range(2):
        runtime.any_rank(False)  # the measurement's own
        runtime.any_rank(False)
        runtime.mean_over_ranks(torch.ones((), requires_grad=True))
        runtime.backward(network(torch.rand(4, 3)).sum())
        runtime.num_steps += 1
    runtime.any_rank(True)
    facts = runtime.facts()
    assert sorted(one.num_bytes for one in facts.arrivals[0]) == [4, 8, 8, 8, 8, 24]
    times = [one.before_end for one in facts.arrivals[0]]
    assert times == sorted(times, reverse=True)
    assert times[-1] >= 0
    assert (facts.votes, facts.norms) == (3, 2)


def test_bandwidths_and_times_are_read_in_every_unit() -> None:
    assert parse_bandwidth("200Gb/s", name="") == parse_bandwidth("25GB/s", name="") == 25e9
    assert parse_bandwidth("100Mbit/s", name="") == 12.5e6
    assert parse_seconds("5us", name="") == pytest.approx(5e-6)
    assert parse_seconds("0.2s", name="") == 0.2


@pytest.mark.slow
@pytest.mark.usefixtures("wide_output")
def test_the_command_measures_two_ranks_and_predicts_more(tmp_path: Path) -> None:
    shape = ["--data.patch_size=32", "--data.batch_size=2", "--generator.channels=8", "--generator.blocks=1"]
    shape += ["--discriminator.channels=4", "--loss.perceptual.weight=0", "--loss.pixel.weight=1", "--train.g_per_d=2"]
    file = tmp_path / "scaling.json"
    done = call("bench", "scaling", "--ranks", "2", "--rounds", "1", "--gpus", "8,16", "--json", file, *shape)
    assert done.code == 0, done.err
    content = json.loads(file.read_text())
    one, two = content["measured"]
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert one["communication"] == 0
    assert 0 < two["communication"] < 1  # only where gradients are averaged does anybody wait for them
    assert two["link"]["bandwidth"] > 1e7
    assert two["efficiency"] == pytest.approx(one["seconds"]["median"] / two["seconds"]["median"])
    assert two["foreseen_seconds"] > two["alone_seconds"]["median"]
    assert content["gradient_bytes"][1] > content["gradient_bytes"][0] > 10_000
    assert content["small_collectives"]["votes"] == 1  # whether a signal came
    assert content["small_collectives"]["batch_norm"] > 0
    assert [row["ranks"] for row in content["foreseen"]] == [8, 16]
    assert "at least 90 % efficient" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds is 0"),
        (["--ranks", "0"], "--ranks is 0, allowed here are 2 to"),
        (["--ranks", "two"], "--ranks is 'two'"),
        (["--gpus", "12", "--gpus-per-node", "8"], "--gpus is 12"),
        (["--gpus-per-node", "0"], "--gpus-per-node is 0"),
        (["--bandwidth", "200Gb"], "--bandwidth is '200Gb', expected a bandwidth such as 200Gb/s"),
        (["--latency", "0us"], "--latency is '0us'"),
        (["--step-time", "69"], "--step-time is '69'"),
        (["--strong", "--data.batch_size=6", "--ranks", "4"], "not a multiple of 4 ranks"),
        (["--json", "nowhere/file.json"], "there is no folder nowhere"),
        (["--train.stepz=1"], "did you mean train.steps"),
    ],
)
def test_mistakes_are_reported_in_one_line_before_the_work(arguments: list[str], message: str) -> None:
    done = call("bench", "scaling", *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.lines) == 1
