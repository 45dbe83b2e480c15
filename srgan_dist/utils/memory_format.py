"""The order of a network's weights in memory."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn


def usable_format(network: nn.Module, wanted: torch.memory_format) -> torch.memory_format:
    """The wanted order, or the network's own: torch has no `channels_last` for kernels of three dimensions."""
    has_volumes = any(tensor.dim() == 5 for tensor in chain(network.parameters(), network.buffers()))
    return torch.preserve_format if has_volumes else wanted
