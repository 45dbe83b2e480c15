"""Predicts the time of all-reduces from bytes, ranks and links, and how much of it a backward pass hides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np

_BUCKETS = (2**20, 25 * 2**20)  # DDP's first bucket, and all others


class Link(NamedTuple):
    """A network link.

    Attributes:
        latency: Seconds from one rank to the next for an empty message.
        bandwidth: Bytes per second in each direction.
    """

    latency: float
    bandwidth: float


def ring(link: Link, num_bytes: float, ranks: int) -> float:
    """Predict the seconds of an all-reduce that goes twice around a ring, in as many pieces as there are ranks.

    Source:
        Patarasuk and Yuan 2009, section 3.
    """
    hops = 2 * (ranks - 1)
    return hops * link.latency + hops / ranks * num_bytes / link.bandwidth


def tree(link: Link, num_bytes: float, ranks: int) -> float:
    """Predict the seconds of a pipelined all-reduce up and down a tree: fewer hops, but all bytes on each.

    Source:
        Sanders, Speck and Traeff 2009, section 3 (two trees that carry half of the bytes each), as in NCCL.
    """
    return 2 * math.ceil(math.log2(ranks)) * link.latency + (2 * num_bytes / link.bandwidth if ranks > 1 else 0.0)


@dataclass(frozen=True)
class Interconnect:
    """The links of a cluster.

    Attributes:
        between: The link between nodes, shared by the GPUs of a node.
        within: The link between GPUs of a node; required if a node has several.
        per_node: Number of GPUs in a node.
    """

    between: Link
    within: Link | None = None
    per_node: int = 1

    def all_reduce(self, num_bytes: float, gpus: int) -> float:
        """Predict the seconds of an all-reduce within and then between nodes, each by the faster of ring and tree.

        Args:
            num_bytes: Bytes on each GPU.
            gpus: Number of GPUs: at most one node's, or a multiple of that.
        """
        inside, nodes = min(gpus, self.per_node), max(1, gpus // self.per_node)
        seconds = _faster(self.between, num_bytes, nodes)
        return seconds + (_faster(self.within, num_bytes, inside) if self.within else 0.0)


def _faster(link: Link, num_bytes: float, ranks: int) -> float:
    return min(ring(link, num_bytes, ranks), tree(link, num_bytes, ranks))


class Arrival(NamedTuple):
    """Gradients that become available in the last backward pass of an update.

    Attributes:
        num_bytes: Their number of bytes.
        before_end: Seconds from the moment they are available to the end of the pass.
    """

    num_bytes: int
    before_end: float


def buckets(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Group gradients into DDP's buckets, in the order in which they become available.

    Args:
        arrivals: One for each parameter, in order.
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
        total: Seconds of all communication.
        exposed: Seconds in which nothing is computed meanwhile.
    """

    total: float
    exposed: float


def reduction(filled: Sequence[Arrival], all_reduce: Callable[[float], float], *, overlaps: bool) -> Cost:
    """Predict the cost of averaging one network's gradients.

    Args:
        filled: The buckets; they are reduced one after another, each as soon as it is full.
        all_reduce: Predicts seconds from bytes.
        overlaps: Whether the backward pass continues meanwhile.
    """
    ended = -math.inf if overlaps else 0.0
    for bucket in filled:
        ended = max(ended, -bucket.before_end if overlaps else 0.0) + all_reduce(bucket.num_bytes)
    return Cost(sum(all_reduce(bucket.num_bytes) for bucket in filled), max(ended, 0.0))


def fit(seconds: Sequence[tuple[int, float]], *, ranks: int) -> Link:
    """Fit the link of a ring to measured all-reduces, by least squares of the relative errors.

    Args:
        seconds: Pairs of bytes and seconds, of at least two sizes.
        ranks: Number of ranks in the ring, at least two.
    """
    hops = 2 * (ranks - 1)
    num_bytes, taken = np.array(seconds, dtype=np.float64).T
    parts = np.stack([np.full_like(taken, hops), hops / ranks * num_bytes], axis=1) / taken[:, None]
    latency, per_byte = np.linalg.lstsq(parts, np.ones_like(taken), rcond=None)[0]
    if latency < 0:
        latency, per_byte = 0.0, parts[:, 1].sum() / (parts[:, 1] ** 2).sum()
    return Link(float(latency), 1 / float(per_byte))
