"""Where the weights of the default model are, and what stands between two sets of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from srgan_dist.errors import UserError

Variant = Literal["gan", "psnr"]
"""gan: what a person prefers; psnr: what is nearest to the original on average, and smoother."""
VARIANTS: tuple[Variant, ...] = get_args(Variant)
FOLDER = Path(__file__).resolve().parents[1] / "default_model"


def default_weights(variant: Variant) -> Path:
    """Find the default model's weights.

    Args:
        variant: Which of the two.

    Raises:
        UserError: There is no such variant, or its weights are not in this installation.
    """
    if variant not in VARIANTS:
        raise UserError(f"the default model has no variant {variant!r}, allowed are {' and '.join(VARIANTS)}")
    path = FOLDER / f"{variant}.safetensors"
    if not path.is_file():
        raise UserError(
            f"{path}: this installation has no weights of the default model: name others (--weights FILE), or train "
            "it by `make model`"
        )
    return path


def named_weights(name: str | Path) -> Path:
    """The path of weights: of the default model's for ``gan`` and ``psnr``, unless there is a file of that name.

    Raises:
        UserError: They are not in this installation.
    """
    path = Path(name)
    if str(path) in VARIANTS and not path.exists():
        return default_weights(next(variant for variant in VARIANTS if variant == str(path)))
    return path


def interpolate(at_zero: Mapping[str, Tensor], at_one: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Interpolate linearly between two networks' weights.

    Args:
        at_zero: State dict, the result at alpha = 0.
        at_one: State dict of the same names and shapes, the result at alpha = 1.
        alpha: From 0 to 1.

    Returns:
        ``(1 - alpha) * at_zero + alpha * at_one``; what is no floating-point number is `at_one`'s.

    Raises:
        ValueError: The names or shapes differ.

    Source:
        Network interpolation: ESRGAN (Wang et al. 2018), section 3.4.
    """
    shapes = [{name: tensor.shape for name, tensor in weights.items()} for weights in (at_zero, at_one)]
    if shapes[0] != shapes[1]:
        differing = next(name for name in [*shapes[1], *shapes[0]] if shapes[0].get(name) != shapes[1].get(name))
        raise ValueError(f"{differing} is in one of them alone, or of another shape")
    return {
        name: torch.lerp(at_zero[name].to(tensor), tensor, alpha) if tensor.is_floating_point() else tensor
        for name, tensor in at_one.items()
    }
