"""Trains as equivalence.py does, with a generator for which one rank's memory is too small.

python out_of_memory.py RANK START LIMIT DTYPE OUT --section.key=value ...: from its forward number START on,
RANK has no memory for more than LIMIT patches.
"""

from __future__ import annotations

import sys
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from srgan_dist.distributed.launch import process_rank
from srgan_dist.models.srresnet import SRResNet
from tests.ranks.equivalence import main

forward = SRResNet.forward
forwards = count(1)


def main_with_little_memory(rank: str, start: str, limit: str, *arguments: str) -> None:
    def limited(self: Any, lr: Tensor) -> Tensor:
        if isinstance(lr, FakeTensor):  # the prediction takes steps as well, without memory
            return forward(self, lr)
        if process_rank() == int(rank) and next(forwards) >= int(start) and len(lr) > int(limit):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return forward(self, lr)

    SRResNet.forward = limited  # type: ignore[method-assign]
    main(*arguments)


if __name__ == "__main__":
    main_with_little_memory(*sys.argv[1:])
