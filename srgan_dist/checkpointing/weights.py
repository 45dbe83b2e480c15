"""Files of weights: ours, and those of other trainers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
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
from srgan_dist.checkpointing.third_party import Role, find_state_dict
from srgan_dist.errors import UserError
from srgan_dist.utils.file_kind import NotWeights, weights_kind
from srgan_dist.utils.files import whole_file

log = logging.getLogger("srgan_dist")

_SMALLEST_FIT = 0.1  # of a network's values: two networks always share a few biases, which would be no beginning
_SHOWN = 3  # names in a log line


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


def load_weights(path: Path, *, role: Role = "generator") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read one network's weights, ours or another trainer's, and the metadata.

    What the file is shows in its first bytes, not in its name. Nothing in it can run code.

    Args:
        path: safetensors, or a file of `torch.save` with tensors and plain values alone.
        role: Which network's, of a file with several.

    Returns:
        The state dict by our names (see `srgan_dist.checkpointing.third_party`), and the metadata of safetensors.

    Raises:
        UserError: There is no such file, or it is not one of weights; the message says what it is.
    """
    if path.is_dir():
        raise UserError(
            f"{path}: is a folder; name a file of weights, such as weights/generator.safetensors in a run's"
        )
    if not path.is_file():
        raise UserError(f"{path}: there is no such weights file")
    try:
        if weights_kind(path) == "safetensors":
            _, metadata = read_header(path)  # which says what is wrong with the file better than its reader does
            content: object = read_safetensors(path)
        else:
            content, metadata = read_pickled(path), {}
        found = find_state_dict(content, role)
        claimed = sum(tensor.nbytes for tensor in found.tensors.values())
        if claimed > path.stat().st_size:  # a view may repeat one value as often as it likes
            raise UnusableTensors(f"its tensors claim {claimed} bytes, and it has {path.stat().st_size}")
    except (NotWeights, UnusableTensors) as error:
        raise UserError(f"{path}: not a file of weights ({error})") from None
    if found.others:
        log.info("%s: the weights of %s are used, not those of %s", path, found.where, ", ".join(found.others))
    return found.tensors, metadata


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
    _load(network, tensors)


def _load(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    current = network.state_dict()
    for name, tensor in tensors.items():
        if not current[name].is_floating_point():  # indices, which the network itself computes and none learns
            if not torch.equal(tensor, current[name].to(tensor.device)):
                raise UnusableTensors(f"{name} is not as the network computes it")
            continue
        if not (tensor.is_floating_point() and tensor.dtype.itemsize > 1):
            raise UnusableTensors(f"{name} is of {tensor.dtype}, and must be of {current[name].dtype}")
        check_finite(name, tensor.to(current[name].dtype))  # a float64 may be too large for what it becomes
    network.load_state_dict(current | dict(tensors))


def initialise(
    network: nn.Module,
    path: Path,
    *,
    role: Role = "generator",
    as_trained: Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]] = lambda _, weights: weights,
) -> None:
    """Load into a network whatever fits of a file's weights, and log what does not.

    That of another scale begins with all but a few layers; what the file lacks keeps its fresh values.

    Args:
        network: The network.
        path: See `load_weights`.
        role: What the network is.
        as_trained: Brings the weights of a file into the form in which this network is trained.

    Raises:
        UserError: There is no such file, it is not one of weights, or less than a tenth of the network would come from
            it.
    """
    weights, _ = load_weights(path, role=role)
    expected, tensors = without_counts(network.state_dict()), without_counts(as_trained(network, weights))
    fitting = {
        name: value for name, value in tensors.items() if name in expected and value.shape == expected[name].shape
    }
    try:
        if _size(fitting) < _SMALLEST_FIT * _size(expected):
            check_shapes({name: value.shape for name, value in tensors.items()}, expected)
        _load(network, fitting)
    except OtherNetwork as error:
        raise UserError(f"{path}: weights of another {role} than the configured one ({error})") from None
    except UnusableTensors as error:
        raise UserError(f"{path}: weights that cannot be used ({error})") from None
    fresh = [name for name in expected if name not in fitting]
    unused = [name for name in tensors if name not in fitting]
    if fresh or unused:
        log.info(
            "%s: %d of the %s's %d tensors are loaded, all that fit; newly initialised: %s; not used of the file: %s",
            path,
            len(fitting),
            role,
            len(expected),
            _shortened(fresh),
            _shortened(unused),
        )


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(f"{' '.join(name.split()):.100}" for name in names[:_SHOWN]) or "none"
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
