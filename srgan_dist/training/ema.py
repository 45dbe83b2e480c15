"""The moving average of the generator: what is validated, saved and used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from srgan_dist.checkpointing.weights import WeightsFile
from srgan_dist.distributed.runtime import Runtime


class Average:
    """An exponential moving average of a network's parameters; buffers are copied.

    Args:
        network: The plain network, on its device, before it learns mixed precision: the average stays in fp32.
        decay: In [0, 1); 0 is a copy.
        runtime: The ranks.
        metadata: Stored with the weights: architecture and scale.

    Attributes:
        network: The averaged network, in eval mode.
    """

    def __init__(self, network: nn.Module, *, decay: float, runtime: Runtime, metadata: Mapping[str, str]) -> None:
        self._averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
        self._runtime, self._metadata = runtime, metadata
        self.network: nn.Module = self._averaged.module.eval()

    @property
    def num_updates(self) -> int:
        """Updates so far, a host synchronisation."""
        return int(self._averaged.n_averaged)

    def update(self, network: nn.Module) -> None:
        """Take in the network's present weights. Equal on all ranks, as the network is."""
        self._averaged.update_parameters(network)

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
        """Go on from weights and their number of updates."""
        self.network.load_state_dict(weights)
        self._averaged.n_averaged.fill_(num_updates)
