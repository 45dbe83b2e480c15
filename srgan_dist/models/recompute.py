"""Less memory for more time: activations that are computed a second time in the backward pass instead of being kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def in_turn(layers: Iterable[nn.Module], x: Tensor, *, recompute: bool) -> Tensor:
    """Apply layers one after the other; of each, a backward pass can do with the input alone.

    Args:
        layers: each maps one tensor to one; what is random in them is not drawn the same way again.
        x: the first one's input.
        recompute: keep only the layers' inputs and run each again in the backward pass: the same gradient. Batch
            normalisation takes in its running statistics once, in the first run.

    Returns:
        The last one's output.

    Source: Chen et al. 2016 (Training deep nets with sublinear memory cost), section 4.
    """
    for layer in layers:
        if not (recompute and torch.is_grad_enabled()):
            x = layer(x)
        elif torch.compiler.is_compiling():  # changes to buffers are no part of what a compiled graph repeats
            x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
        else:
            x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False, context_fn=_Contexts(layer))
    return x


class _Contexts:
    """What a layer runs in: the first time nothing, the second time with its running statistics held."""

    def __init__(self, layer: nn.Module) -> None:
        self._norms = [module for module in layer.modules() if isinstance(module, _BatchNorm)]

    def __call__(self) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        return contextlib.nullcontext(), self._held()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        # Without running statistics a BatchNorm would save fewer tensors than in the first run, which torch refuses.
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
