"""The exponential moving average of the generator: what is validated, saved and used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from srgan_dist.checkpointing.weights import WeightsFile
from srgan_dist.distributed.runtime import Runtime


class EMA:
    """An exponential moving average of a network's parameters; buffers are copied.

    Args:
        network: Of the same architecture, on its device, in fp32; it becomes the average.
        decay: In [0, 1); 0 is a copy.
        runtime: The ranks.
        metadata: Stored with the weights: architecture and scale.

    Attributes:
        network: The averaged network, in eval mode.
        num_updates: Updates so far.
    """

    def __init__(self, network: nn.Module, *, decay: float, runtime: Runtime, metadata: Mapping[str, str]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.num_updates = 0
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._runtime, self._metadata = runtime, metadata

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """``average = decay * average + (1 - decay) * weights``; the first update takes the weights as they are.

        Args:
            network: The plain network. Equal on all ranks, and so is the average.
        """
        average: list[Tensor] = list(self.network.parameters())
        weights: list[Tensor] = list(network.parameters())
        if self.num_updates:
            self._average(average, weights, self.num_updates)
        else:
            torch._foreach_copy_(average, weights)
        for copied, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            copied.copy_(buffer)
        self.num_updates += 1

    def share_buffers(self) -> None:
        """BatchNorm's running statistics differ between ranks; rank 0's are the ones that are saved and validated."""
        for buffer in self.network.buffers():
            self._runtime.broadcast_tensor(buffer)

    def file(self, path: Path, facts: Mapping[str, str]) -> WeightsFile:
        """The weights for use.

        Args:
            path: Where they go.
            facts: Stored beside the metadata.
        """
        self.share_buffers()
        return WeightsFile(path, self.network.state_dict(), {**self._metadata, **facts})

    def load(self, weights: Mapping[str, Tensor], *, num_updates: int) -> None:
        """Resume from weights and their number of updates."""
        self.network.load_state_dict(weights)
        self.num_updates = num_updates
