"""The exponential moving average of the generator, which is validated, exported and used for inference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from srgan_dist.checkpointing.weights import WeightsFile
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.models.reparameterised import weights_to_save


class EMA:
    """An exponential moving average of a network's parameters; buffers are copied.

    Args:
        network: A network of the same architecture, on its device, in fp32; it will hold the average.
        decay: Weight of the old average, in [0, 1); 0 copies the weights.
        runtime: The ranks.
        metadata: Architecture and scale, stored with the weights.

    Attributes:
        network: The averaged network, in eval mode.
        num_updates: Number of updates so far.
    """

    def __init__(self, network: nn.Module, *, decay: float, runtime: Runtime, metadata: Mapping[str, str]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.num_updates = 0
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._runtime, self._metadata = runtime, metadata

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """``average = decay * average + (1 - decay) * weights``; the first update copies the weights.

        Args:
            network: The plain network. It is equal on all ranks, and so is the average.
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

    def broadcast_buffers(self) -> None:
        """Use rank 0's BatchNorm statistics on all ranks, where they differ, for validation and for export."""
        for buffer in self.network.buffers():
            self._runtime.broadcast_tensor(buffer)

    def file(self, path: Path, facts: Mapping[str, str]) -> WeightsFile:
        """The weights file for inference, yet to be written.

        Args:
            path: The file's path.
            facts: Stored in addition to the metadata.
        """
        self.broadcast_buffers()
        return WeightsFile(path, weights_to_save(self.network), {**self._metadata, **facts})

    def load(self, weights: Mapping[str, Tensor], *, num_updates: int) -> None:
        """Resume from weights and their number of updates."""
        self.network.load_state_dict(weights)
        self.num_updates = num_updates
