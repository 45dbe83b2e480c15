"""Tensors that are not what they should be."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srgan_dist.checkpointing.tensors import write_safetensors

_DTYPES = (torch.int8, torch.uint8, torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.cfloat)
_OBJECTS: tuple[Any, ...] = (None, True, 1, -1.5, 10**30, "text", "two\nlines", [], {}, [[1]], (1, 2), torch.Size([3]))


def mutate_tensors(value: Any, rng: random.Random) -> Any:
    """Damage one place of a state dict: a tensor of another dtype, shape or kind, another object, a name gone or new.

    Args:
        value: Dictionaries, lists and tensors within each other; changed in place where it can be.
        rng: Decides where, and to what.

    Returns:
        The changed value.
    """
    if isinstance(value, Tensor):
        return _other_tensor(value, rng) if rng.random() < 0.9 else rng.choice(_OBJECTS)
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys or rng.random() < 0.03:
        return rng.choice(_OBJECTS)
    key = rng.choice(keys)
    if rng.random() < 0.07:
        del value[key]
    elif isinstance(value, dict) and rng.random() < 0.07:
        value[rng.choice(("other", "", "a\nb", 7, None, -1, 2**70))] = value[key]
    else:
        value[key] = mutate_tensors(value[key], rng)
    return value


def write_mutated(path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str], rng: random.Random) -> None:
    """Damage tensors and write what is left of them as safetensors, or nothing where the format has no such thing."""
    damaged = mutate_tensors(tensors, rng)
    if isinstance(damaged, dict):
        named = {name: value for name, value in damaged.items() if isinstance(name, str) and torch.is_tensor(value)}
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
            write_safetensors(path, named, metadata)


def _other_tensor(tensor: Tensor, rng: random.Random) -> Tensor:
    tensor = tensor.detach().clone()
    size = rng.choice((0, 1, 3, 1000))
    match rng.randrange(11):
        case 0 | 1:
            return tensor.to(rng.choice(_DTYPES))
        case 2:
            return torch.zeros(size, dtype=tensor.dtype)
        case 3:
            return tensor.flatten()
        case 4:
            return tensor[None]
        case 5:
            return torch.zeros(1, dtype=tensor.dtype).expand(2**40)  # four bytes that claim terabytes
        case 6:
            return tensor.to_sparse() if tensor.ndim else tensor[None].to_sparse()
        case 7:
            return torch.empty_like(tensor, device="meta")
        case 8 if tensor.is_floating_point():
            return torch.full_like(tensor, rng.choice((math.nan, math.inf, -math.inf, -1.0, 3e38, 1e-40)))
        case 9 if tensor.is_floating_point():
            return tensor.requires_grad_()
        case _:
            return tensor.transpose(0, -1) if tensor.ndim > 1 else tensor.repeat(2)
