"""Says what a file is that should be one of weights, from its first bytes: its name proves nothing."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

_HEAD = 1024  # bytes that tell

_STATE_DICT = "save its state dict instead: torch.save(model.state_dict(), FILE)"
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"\x1f\x8b", "compressed by gzip: decompress it"),
    (b"BZh", "compressed by bzip2: decompress it"),
    (b"\xfd7zXZ\0", "compressed by xz: decompress it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: extract the weights from it"),
    (b"Rar!", "a RAR archive: extract the weights from it"),
    (b"\x89HDF\r\n", "an HDF5 file, as of Keras"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"7767517\n", "a network of ncnn"),
)
_PAGES = ("<!doctype html", "<html", "<head", "<?xml")
_ONNX_FIELDS = b"\x12\x1a\x22\x32\x3a\x42"  # what may follow ONNX's version: producer, domain, doc, graph, opset


class NotWeights(Exception):
    """A file is none of weights; the message, one line, says what it is and what to do, but not of which file."""


def weights_kind(path: Path) -> Literal["safetensors", "torch"]:
    """Recognise a file of weights.

    Args:
        path: The file.

    Returns:
        Which reader it is for.

    Raises:
        NotWeights: It is another file, or one that is cut short.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise NotWeights(error.strerror or str(error)) from None
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"PK"):
        _check_archive(path)
        return "torch"
    if head.startswith(b"\x80"):  # how every pickle begins, and with it the files of torch before 1.6
        return "torch"
    raise NotWeights(_describe(head, path))


def _check_archive(path: Path) -> None:
    """Refuse a zip archive that `torch.save` did not write."""
    if not zipfile.is_zipfile(path):
        raise NotWeights("a zip archive that is cut short: download or copy it again")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # noqa: BLE001 - a damaged directory can make it raise anything
        raise NotWeights(f"a damaged zip archive: {type(error).__name__}") from None
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise NotWeights(f"a TorchScript program, whose code is never run: {_STATE_DICT}")
    if "data.pkl" in inner:
        return
    if any("exported_program" in name or name.endswith("models/model.json") for name in names):
        raise NotWeights(f"a program of torch.export: {_STATE_DICT}")
    if names and all(name.endswith(".npy") for name in names):
        raise NotWeights("an archive of NumPy arrays")
    raise NotWeights("a zip archive that torch.save did not write: extract the weights from it")


def _describe(head: bytes, path: Path) -> str:
    if not head:
        return "an empty file, of 0 bytes: download or copy it again"
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive: extract the weights from it"
    if path.suffix.lower() == ".onnx" or (head[:1] == b"\x08" and head[2:3] and head[2:3] in _ONNX_FIELDS):
        return "an ONNX file, which is no state dict: take the weights that it was exported from"
    if not head.strip(b"\0"):
        return "begins with zeros, like a download that was never finished: download it again"
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff").lstrip()
    if text.lower().startswith(_PAGES):
        return "a web page, not the file that it offers: download from the page's own download link"
    shown = " ".join(text[:40].split())
    if shown.isprintable() and "\ufffd" not in text[:-1]:
        return f"a text that begins with {shown!r}"
    return "neither safetensors nor a file of torch.save"
