"""Files of weights: ours, and those of other trainers."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from srgan_dist.errors import UserError
from srgan_dist.utils.files import whole_file


@dataclass(frozen=True)
class WeightsFile:
    """Weights for use, and where they go.

    Attributes:
        path: The file.
        weights: State dict.
        metadata: Strings stored in the file's header.
    """

    path: Path
    weights: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write weights as safetensors; the file appears, or changes, only when they are on disk.

    Args:
        path: The file.
        weights: State dict.
        metadata: Strings stored in the file's header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        save_file({key: value.detach().contiguous() for key, value in weights.items()}, temporary, dict(metadata))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights and metadata of a safetensors file.

    Raises:
        UserError: There is no such file, or it is not safetensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such weights file")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file of weights ({error})") from None


def initialise(network: nn.Module, path: Path) -> None:
    """Load a generator's weights into a network of the same architecture.

    Args:
        network: The network.
        path: safetensors, or a ``.pth`` of tensors: a state dict, or BasicSR's with ``params_ema`` or ``params``.

    Raises:
        UserError: There is no such file, it is not one of weights, or they belong to another network.
    """
    if path.suffix == ".safetensors":
        weights, _ = load_weights(path)
    else:
        weights = _load_pth(path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: weights of another generator than the configured one ({reason})") from None


def _load_pth(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such weights file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a file of weights ({str(error).splitlines()[0]})") from None
    for key in ("params_ema", "params", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: holds no state dict of tensors")
    return dict(content)
