"""Activation checkpointing: activations are recomputed in the backward pass instead of being stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def in_turn(layers: Iterable[nn.Module], x: Tensor, *, recompute: bool) -> Tensor:
    """Apply layers in sequence, storing only the input of each for the backward pass if asked to.

    Args:
        layers: Modules that map a tensor to a tensor. They must not be random, as random numbers are not replayed.
        x: Input of the first layer.
        recompute: Store only the layers' inputs and run each layer again in the backward pass, for the same gradient.
            Batch normalisation updates its running statistics once, in the first run.

    Returns:
        Output of the last layer.

    Source:
        Chen et al. 2016 (Training deep nets with sublinear memory cost), section 4.
    """
    for layer in layers:
        if not (recompute and torch.is_grad_enabled()):
            x = layer(x)
        elif torch.compiler.is_compiling():  # a compiled graph does not repeat changes of buffers
            x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
        else:
            x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False, context_fn=_Contexts(layer))
    return x


class _Contexts:
    """The contexts of a layer's two runs: in the second one, its running statistics do not change."""

    def __init__(self, layer: nn.Module) -> None:
        self._norms = [module for module in layer.modules() if isinstance(module, _BatchNorm)]

    def __call__(self) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        return contextlib.nullcontext(), self._held()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        # Without running statistics, BatchNorm would save fewer tensors than in the first run, which torch refuses.
        held = [(norm, norm.momentum) for norm in self._norms if norm.training and norm.track_running_stats]
        for norm, _ in held:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum in held:
                norm.momentum = momentum
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.sub_(1)
