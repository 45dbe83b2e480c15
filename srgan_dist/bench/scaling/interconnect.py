"""What an all-reduce costs, by the bytes, the ranks and the wires, and how much of it a backward pass hides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np

_BUCKETS = (2**20, 25 * 2**20)  # DDP's first bucket, and all others


class Link(NamedTuple):
    """A wire.

    Attributes:
        latency: seconds from one rank to the next, for a message of no bytes.
        bandwidth: bytes a second, each way.
    """

    latency: float
    bandwidth: float


def ring(link: Link, num_bytes: float, ranks: int) -> float:
    """Seconds of an all-reduce that goes twice around a ring, cut into as many pieces as there are ranks.

    Source: Patarasuk and Yuan 2009, section 3.
    """
    hops = 2 * (ranks - 1)
    return hops * link.latency + hops / ranks * num_bytes / link.bandwidth


def tree(link: Link, num_bytes: float, ranks: int) -> float:
    """Seconds of an all-reduce up and down a tree, in a stream: fewer hops, all of the bytes.

    Source: Sanders, Speck and Traeff 2009, section 3 (two trees that share the bytes), as NCCL has it.
    """
    return 2 * math.ceil(math.log2(ranks)) * link.latency + (2 * num_bytes / link.bandwidth if ranks > 1 else 0.0)


@dataclass(frozen=True)
class Interconnect:
    """The wires of a cluster.

    Attributes:
        between: of a node, which its GPUs share.
        within: from GPU to GPU of a node; needed where a node has several.
        per_node: GPUs of a node.
    """

    between: Link
    within: Link | None = None
    per_node: int = 1

    def all_reduce(self, num_bytes: float, gpus: int) -> float:
        """Seconds of an all-reduce: within each node and between the nodes, each by the shorter of ring and tree.

        Args:
            num_bytes: that each GPU holds.
            gpus: one node's or fewer, or a multiple of that.
        """
        inside, nodes = min(gpus, self.per_node), max(1, gpus // self.per_node)
        seconds = _shorter(self.between, num_bytes, nodes)
        return seconds + (_shorter(self.within, num_bytes, inside) if self.within else 0.0)


def _shorter(link: Link, num_bytes: float, ranks: int) -> float:
    return min(ring(link, num_bytes, ranks), tree(link, num_bytes, ranks))


class Arrival(NamedTuple):
    """Some gradients of the last backward pass of an update.

    Attributes:
        num_bytes: how many.
        before_end: seconds from when they are there to the end of the pass.
    """

    num_bytes: int
    before_end: float


def buckets(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """What DDP reduces together: gradients in the order in which they come, until a bucket is full.

    Args:
        arrivals: one for each parameter, the first to come first.
    """
    filled: list[Arrival] = []
    limits = chain(_BUCKETS, repeat(_BUCKETS[-1]))
    limit, num_bytes, last = next(limits), 0, 0.0
    for one in arrivals:
        num_bytes, last = num_bytes + one.num_bytes, one.before_end
        if num_bytes >= limit:
            filled.append(Arrival(num_bytes, last))
            limit, num_bytes = next(limits), 0
    return [*filled, Arrival(num_bytes, last)] if num_bytes else filled


class Cost(NamedTuple):
    """Seconds of communication.

    Attributes:
        total: of all of it.
        exposed: in which nothing else is done.
    """

    total: float
    exposed: float


def reduction(filled: Sequence[Arrival], all_reduce: Callable[[float], float], *, overlaps: bool) -> Cost:
    """What it costs to average one network's gradients.

    Args:
        filled: the buckets, reduced one after another, each as soon as it is full.
        all_reduce: seconds by bytes.
        overlaps: whether the backward pass goes on meanwhile.
    """
    ended = -math.inf if overlaps else 0.0
    for bucket in filled:
        ended = max(ended, -bucket.before_end if overlaps else 0.0) + all_reduce(bucket.num_bytes)
    return Cost(sum(all_reduce(bucket.num_bytes) for bucket in filled), max(ended, 0.0))


def fit(seconds: Sequence[tuple[int, float]], *, ranks: int) -> Link:
    """The link of a ring on which all-reduces took so long: least squares of the relative errors.

    Args:
        seconds: pairs of bytes and seconds, at least two sizes.
        ranks: in the ring, at least two.
    """
    hops = 2 * (ranks - 1)
    num_bytes, taken = np.array(seconds, dtype=np.float64).T
    parts = np.stack([np.full_like(taken, hops), hops / ranks * num_bytes], axis=1) / taken[:, None]
    latency, per_byte = np.linalg.lstsq(parts, np.ones_like(taken), rcond=None)[0]
    if latency < 0:
        latency, per_byte = 0.0, parts[:, 1].sum() / (parts[:, 1] ** 2).sum()
    return Link(float(latency), 1 / float(per_byte))
