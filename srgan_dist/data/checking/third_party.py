"""Writes index and manifest of third-party shards, so that `data.train` can read them."""

from __future__ import annotations

import os
from collections import Counter
from typing import cast

import numpy as np

from srgan_dist.data.checking.inputs import ShardFolder
from srgan_dist.data.checking.sample import InspectedSample
from srgan_dist.data.shard_format.encodings import Encoding
from srgan_dist.data.shard_format.index_rows import INDEX_NAME, ROW, Rows
from srgan_dist.data.shard_format.manifest import MANIFEST_NAME, Manifest, ShardEntry
from srgan_dist.errors import UserError
from srgan_dist.utils.files import file_sha256, whole_file, write_whole

_GIVEN = "given by those who made the shards"
_MADE_IN_TRAINING = "made while training: bicubic with antialiasing of the whole image, like MATLAB imresize, 8-bit"


class ThirdPartyIndex:
    """Collects the samples of tars while they are checked, and writes their index and manifest.

    Unlike `build_index`, which indexes what the packer wrote, it accepts other members beside the pairs, LR before
    HR, any mixture of image files, and HR images alone, whose LR is made during training (`lr_size` 0).

    Args:
        folders: What is checked: one folder without manifest.json and index.npy, which are written there.

    Raises:
        UserError: There are several folders, index or manifest exist already, or the folder cannot be written.
    """

    def __init__(self, folders: list[ShardFolder]) -> None:
        if len(folders) != 1:
            named = ", ".join(str(folder.path) for folder in folders)
            raise UserError(f"--write-index is for one folder, got {len(folders)} ({named}): index one after another")
        self._folder = folders[0]
        for name in (MANIFEST_NAME, INDEX_NAME):
            if (self._folder.path / name).exists():
                raise UserError(f"{self._folder.path / name}: exists, --write-index is for shards without: remove it")
        for shard in self._folder.shards:
            if shard.suffix != ".tar":
                raise UserError(f"{shard}: --write-index needs names ending in .tar: rename it")
        if not os.access(self._folder.path, os.W_OK):
            raise UserError(
                f"{self._folder.path}: --write-index cannot write here: copy the shards to a folder of yours"
            )
        self._numbers = {shard: number for number, shard in enumerate(self._folder.shards)}
        self._rows = bytearray()  # 40 bytes a sample, where tuples would take 400
        self._encodings: Counter[str] = Counter()
        self._scales: Counter[int | None] = Counter()
        self._single = 0

    def add(self, sample: InspectedSample) -> None:
        """Add a sample.

        Args:
            sample: From the checker; the samples of a shard may come in any order.
        """
        hr, lr, scale = sample.hr, sample.lr, sample.scale or 1
        row = (
            self._numbers[sample.shard],
            hr.header.height // scale * scale,
            hr.header.width // scale * scale,
            hr.member.offset,
            lr.member.offset if lr else 0,
            hr.member.size,
            lr.member.size if lr else 0,
            hr.crc,
            lr.crc if lr else 0,
        )
        self._rows += np.array([row], dtype=ROW).tobytes()
        self._encodings.update(part.header.encoding for part in (hr, lr) if part)
        self._scales[sample.scale] += 1
        self._single += lr is None

    def write(self, *, created_by: str) -> Manifest:
        """Write index.npy and then manifest.json; call it only where the check found no fault.

        Args:
            created_by: Program and version.

        Returns:
            The manifest that was written.

        Raises:
            UserError: There is no sample, the scale is unknown, .npy files are mixed with others, or the disk is full.
        """
        folder = self._folder.path
        scale = next(iter(self._scales), None)
        if not self._rows:
            raise UserError(f"{folder}: holds no samples (KEY.hr.png with KEY.lr.png, or KEY.png alone)")
        if scale is None:
            raise UserError(f"{folder}: HR images alone do not determine the scale: set it with --scale")
        if "raw" in self._encodings and len(self._encodings) > 1:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self._encodings.items()))
            raise UserError(f"{folder}: .npy members beside other images ({kinds}), one index needs one kind: repack")
        index: Rows = np.frombuffer(bytes(self._rows), dtype=ROW)
        index = index[np.lexsort((index["hr_offset"], index["shard"]))]
        try:
            with whole_file(folder / INDEX_NAME) as path, open(path, "wb") as file:
                np.lib.format.write_array(file, index, version=(1, 0), allow_pickle=False)
            manifest = self._manifest(index, scale, created_by)
            write_whole(folder / MANIFEST_NAME, manifest.to_json())  # last: it makes the folder a packed one
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror or error}): make room") from error
        return manifest

    def _manifest(self, index: Rows, scale: int, created_by: str) -> Manifest:
        counts = np.bincount(index["shard"], minlength=len(self._folder.shards)).tolist()
        return Manifest(
            scale=scale,
            tile=int(max(index["height"].max(), index["width"].max())),
            # Readers detect image files by their first bytes; the most common encoding stands for all.
            encoding=cast("Encoding", self._encodings.most_common(1)[0][0]),
            kernel=" or ".join([_GIVEN] * (self._single < len(index)) + [_MADE_IN_TRAINING] * (self._single > 0)),
            num_samples=len(index),
            num_images=len(index),
            index_sha256=file_sha256(self._folder.path / INDEX_NAME),
            shards=tuple(
                ShardEntry(name=path.name, bytes=path.stat().st_size, sha256=file_sha256(path), samples=count)
                for path, count in zip(self._folder.shards, counts, strict=True)
            ),
            created_by=created_by,
        )
