"""Trains as train.py does, but one rank hangs or dies at its third generator update.

python hang.py RANK sleep|die --section.key=value ...
"""

from __future__ import annotations

import os
import signal
import sys
import time
from itertools import count
from typing import Any

from torch import Tensor

from srgan_dist.cli import train
from srgan_dist.distributed.launch import process_rank
from srgan_dist.models.srresnet import SRResNet


def main(rank: str, how: str, *arguments: str) -> int:
    forward, forwards = SRResNet.forward, count(1)

    def faulty(self: Any, lr: Tensor) -> Tensor:
        # Of tensors, not of those without data by which it is asked beforehand what can be computed.
        if type(lr) is Tensor and process_rank() == int(rank) and next(forwards) == 3:
            if how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return forward(self, lr)

    SRResNet.forward = faulty  # type: ignore[method-assign]
    return train(arguments, prog="hang.py")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
