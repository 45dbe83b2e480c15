"""Files of weights: ours, and those of other trainers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from srgan_dist.checkpointing.tensors import (
    OtherNetwork,
    UnusableTensors,
    check_finite,
    check_shapes,
    plain_tensors,
    read_header,
    read_pickled,
    read_safetensors,
    without_counts,
    write_safetensors,
)
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
        write_safetensors(temporary, weights, metadata)


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights and metadata of a safetensors file.

    Raises:
        UserError: There is no such file, or it is not safetensors.
    """
    _, metadata = read_claims(path)
    try:
        return read_safetensors(path), metadata
    except UnusableTensors as error:
        raise UserError(f"{path}: not a safetensors file of weights ({error})") from None


def read_claims(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Read what a safetensors file says that it holds: shapes by name, and metadata.

    Raises:
        UserError: There is no such file, or it is not safetensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such weights file")
    try:
        return read_header(path)
    except UnusableTensors as error:
        raise UserError(f"{path}: not a safetensors file of weights ({error})") from None


def load_into(network: nn.Module, weights: object) -> None:
    """Load weights, of any precision, into the network that they are for.

    Args:
        network: The network.
        weights: What a file holds.

    Raises:
        OtherNetwork: Their names or shapes are those of another network.
        UnusableTensors: They are no tensors, no numbers of the same kind, or not finite.
    """
    expected, tensors = without_counts(network.state_dict()), without_counts(plain_tensors(weights))
    check_shapes({name: tensor.shape for name, tensor in tensors.items()}, expected)
    for name, like in expected.items():
        if not _is_floating(tensors[name]):
            raise UnusableTensors(f"{name} is of {tensors[name].dtype}, and must be of {like.dtype}")
        check_finite(name, tensors[name])
    network.load_state_dict(network.state_dict() | tensors)


def _is_floating(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize > 1


def initialise(network: nn.Module, path: Path) -> None:
    """Load a generator's weights into a network of the same architecture.

    Args:
        network: The network.
        path: safetensors, or a ``.pth`` of tensors: a state dict, or BasicSR's with ``params_ema`` or ``params``.

    Raises:
        UserError: There is no such file, it is not one of weights, or they belong to another network.
    """
    try:
        load_into(network, load_weights(path)[0] if path.suffix == ".safetensors" else _load_pth(path))
    except OtherNetwork as error:
        raise UserError(f"{path}: weights of another generator than the configured one ({error})") from None
    except UnusableTensors as error:
        raise UserError(f"{path}: weights that cannot be used ({error})") from None


def _load_pth(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such weights file")
    try:
        content = read_pickled(path)
    except UnusableTensors as error:
        raise UserError(f"{path}: not a file of weights ({error})") from None
    for key in ("params_ema", "params", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    try:
        return plain_tensors(content)
    except UnusableTensors as error:
        raise UserError(f"{path}: holds no state dict of tensors ({error})") from None
