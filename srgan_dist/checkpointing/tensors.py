"""Files of tensors: written the same way every time, read without running code, checked before they are used."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

_LARGEST_HEADER = 100 * 2**20  # the library's own limit
# How torch names what an unpickler would have to import and call.
_REFUSED = re.compile(r"GLOBAL (\S+)")
_Value = TypeVar("_Value")
_NO_FACTS: Mapping[str, str] = MappingProxyType({})


class UnusableTensors(Exception):
    """A file's content cannot be used; the message, one line, says which tensor and why, but not of which file."""


class OtherNetwork(UnusableTensors):
    """Its tensors have the names or shapes of another network."""


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = _NO_FACTS) -> None:
    """Write a safetensors file; equal content gives equal bytes.

    The library's `save_file` orders metadata differently in every process, writes to a random name beside the file,
    which a kill leaves behind, and lets nobody but its owner read the file.

    Args:
        path: The file.
        tensors: State dict.
        metadata: Strings stored in the file's header.
    """
    content = memoryview(save({key: value.detach().contiguous() for key, value in tensors.items()}))
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(bytes(content[8:size]))
    if metadata:
        header = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(content[size:])


def read_header(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Read what a safetensors file says that it holds.

    Args:
        path: The file.

    Returns:
        The tensors' shapes by name, and the metadata.

    Raises:
        UnusableTensors: It cannot be read, is not safetensors, or is cut short.
    """
    try:
        found = path.stat().st_size
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > min(_LARGEST_HEADER, found):
                raise UnusableTensors(f"cut short or damaged: {found} bytes, of which the header would be {size}")
            header = json.loads(file.read(size).decode())
        metadata = header.pop("__metadata__", {})
        shapes = {name: [int(side) for side in entry["shape"]] for name, entry in header.items()}
        claimed = 8 + size + max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        if claimed > found:
            raise UnusableTensors(f"cut short: {found} of {claimed} bytes are there; download or copy it again")
        return shapes, {str(key): str(value) for key, value in metadata.items()}
    except (OSError, ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError) as error:
        raise UnusableTensors(f"a safetensors file whose header is damaged: {_first_line(error)}") from None


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    The file is read, not mapped: a mapped one that cannot be read, or becomes shorter, kills the process.

    Args:
        path: The file.

    Raises:
        UnusableTensors: It cannot be read, or is not safetensors.
    """
    try:
        return load(path.read_bytes())
    except Exception as error:  # noqa: BLE001 - of the library's parser, of torch, or of the disk
        raise UnusableTensors(_first_line(error)) from None


def read_pickled(path: Path) -> Any:
    """Read a file of `torch.save` that holds tensors and plain values alone; nothing in it can run code.

    Args:
        path: The file.

    Raises:
        UnusableTensors: It cannot be read, is damaged, or holds anything else.
    """
    try:
        if zipfile.is_zipfile(path):
            _refuse_inflated(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of tensors that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnusableTensors:
        raise
    except EOFError:
        raise UnusableTensors("cut short: download or copy it again") from None
    except Exception as error:  # noqa: BLE001 - a stream of pickle's opcodes can make it raise anything at all
        if asked := _REFUSED.search(str(error)):
            raise UnusableTensors(
                f"holds {asked[1]:.100}, no plain value; loading it could run code, which is never done: save the "
                "state dict alone"
            ) from None
        raise UnusableTensors(_first_line(error)) from None


def _first_line(error: Exception) -> str:
    """What an error says, in one line; the libraries' have many."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _refuse_inflated(path: Path) -> None:
    """Refuse an archive whose members claim more bytes than it has: `torch.save` does not compress."""
    with zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
    if claimed > path.stat().st_size:
        raise UnusableTensors(f"its members claim {claimed} bytes, and the file has {path.stat().st_size}")


def check_network(found: object, network: nn.Module) -> None:
    """Compare a state dict that we saved with the network that it is for: nothing may differ but the values.

    Args:
        found: What a file holds.
        network: The network.

    Raises:
        OtherNetwork: Its names or shapes are not the network's.
        UnusableTensors: A tensor is of another dtype or not finite.
    """
    expected = network.state_dict()
    tensors = plain_tensors(found)
    check_shapes({name: tensor.shape for name, tensor in tensors.items()}, expected)
    for name, like in expected.items():
        check_tensor(name, tensors[name], like)


def check_shapes(found: Mapping[str, Sequence[int]], expected: Mapping[str, Tensor]) -> None:
    """Compare the names and shapes of a file's tensors with a network's.

    Args:
        found: Shapes by name.
        expected: State dict of the network, which may be on the meta device.

    Raises:
        OtherNetwork: They differ; the first that does is named.
    """
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    if missing or unknown:
        what = f"{'lacks' if missing else 'has an unknown'} {(missing or unknown)[0]!r:.100}"
        others = len(missing) + len(unknown) - 1
        raise OtherNetwork(what + (f", and {others} more names differ" if others else ""))
    for name, like in expected.items():
        if list(found[name]) != list(like.shape):
            raise OtherNetwork(f"{name} is {_shown(found[name])}, the network's is {_shown(like.shape)}")


def without_counts(found: Mapping[str, _Value]) -> dict[str, _Value]:
    """A state dict without BatchNorm's counts of batches, which no network uses; some programs drop or cast them."""
    return {name: value for name, value in found.items() if not name.endswith(".num_batches_tracked")}


def check_tensor(name: str, found: object, like: Tensor) -> None:
    """Compare a tensor with the one in whose place it is to stand.

    Args:
        name: Its name, for the message.
        found: What a file holds.
        like: The one in use.

    Raises:
        UnusableTensors: It is no tensor, of another shape or dtype, or not finite.
    """
    if not _is_plain(found):
        raise UnusableTensors(f"{name} is no plain tensor")
    if (found.dtype, found.shape) != (like.dtype, like.shape):
        raise UnusableTensors(f"{name} is {_described(found)}, and must be {_described(like)}")
    check_finite(name, found)


def check_finite(name: str, found: Tensor) -> None:
    """Refuse infinite values and NaN.

    Raises:
        UnusableTensors: There are some.
    """
    if not found.isfinite().all():
        raise UnusableTensors(f"{name} is not finite")


def plain_tensors(found: object) -> dict[str, Tensor]:
    """A state dict of ordinary tensors.

    Args:
        found: What a file holds.

    Raises:
        UnusableTensors: It is anything else.
    """
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise UnusableTensors("no state dict of tensors")
    for name, value in found.items():
        if not _is_plain(value):
            raise UnusableTensors(f"{name!r:.100} is no plain tensor")
    return dict(found)


def _is_plain(found: object) -> TypeGuard[Tensor]:
    """Whether something is an ordinary tensor with its values in memory: not sparse, quantised, nested or meta."""
    return (
        isinstance(found, Tensor)
        and not (found.is_nested or found.is_quantized or found.is_meta)
        and found.layout == torch.strided
    )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {_shown(tensor.shape)}"


def _shown(shape: Sequence[int]) -> str:
    return str(list(shape)) if len(shape) <= 8 else f"of {len(shape)} dimensions"
