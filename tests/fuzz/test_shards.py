"""Damaged shards: `check` reports each and goes on, opening and reading ends in one line."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from srgan_dist.data.checking.check import check_shards
from srgan_dist.data.checking.report import Finding
from srgan_dist.data.loading.pairs import PairDataset
from srgan_dist.data.packing.pack import pack
from srgan_dist.data.shard_format.encodings import ENCODINGS
from srgan_dist.data.shards.shard_set import build_index, open_shards
from srgan_dist.errors import Failure, UserError
from srgan_dist.utils.files import file_sha256
from tests.conftest import photo
from tests.fuzz.harness import fuzz, mutate

PATCH = 16
_BATCH = 24


def pack_each(folder: Path) -> None:
    """Pack two images in each encoding, with a third held out where the hash of a key says so."""
    (folder / "hr").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(photo(44 + 4 * number, 60, number)).save(folder / "hr" / f"{number}.png")
    for encoding in ENCODINGS:
        tile = None if encoding == "jpeg" else 32
        pack(
            folder / "hr", folder / encoding, encoding=encoding, tile=tile, shard_bytes=40_000, validation_fraction=0.6
        )


def damage(folder: Path, rng: random.Random) -> Path:
    """Damage one file of a packed folder, half of the times with a manifest that fits."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    tars = [path for path in files if path.suffix == ".tar"]
    path = rng.choice([*files, *rng.choices(tars, k=len(files))])
    path.write_bytes(mutate(path.read_bytes(), rng))
    if path.name in ("manifest.json", "pack.json") or rng.random() < 0.5:
        return path
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["index_sha256"] = file_sha256(folder / "index.npy")
    for entry in manifest["shards"]:
        shard = folder / entry["name"]
        entry |= {"bytes": shard.stat().st_size, "sha256": file_sha256(shard)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return path


def check(*paths: Path, write_index: bool = False) -> None:
    found: list[Finding] = []
    summary = check_shards(
        paths, on_finding=found.append, write_index=write_index, contact_sheet=paths[0].parent / "sheet.png"
    )
    lines = [*map(str, found), *summary.lines()]
    assert "".join(lines).isprintable()


def read(folder: Path) -> None:
    shards = open_shards([folder])
    dataset = PairDataset(shards, patch_size=PATCH, seed=0)
    for first in range(0, 4 * _BATCH, _BATCH):
        dataset.at(range(first, first + _BATCH))


def packed_folder(source: Path, rng: random.Random, folder: Path) -> None:
    copy = shutil.copytree(source / rng.choice(ENCODINGS), folder / "set")
    damage(copy, rng)
    check(copy)
    read(copy)


def third_party(source: Path, rng: random.Random, folder: Path) -> None:
    """Tars without a manifest: what `check --write-index` makes of them can be read."""
    copy = folder / "set"
    copy.mkdir()
    for tar in (source / rng.choice(ENCODINGS)).glob("*.tar"):
        (copy / tar.name).write_bytes(mutate(tar.read_bytes(), rng) if rng.random() < 0.7 else tar.read_bytes())
    check(copy, write_index=True)
    if (copy / "manifest.json").exists():
        read(copy)


def from_afar(source: Path, rng: random.Random, folder: Path) -> None:
    """A remote folder, and the tar that a command writes."""
    encoding = rng.choice(ENCODINGS)
    copy = shutil.copytree(source / encoding, folder / "set")
    damage(copy, rng)
    tar = rng.choice(sorted(copy.glob("*.tar")))
    reasons = []
    for reading in (
        partial(open_shards, [f"file://{copy}"], cache_dir=folder / "cache"),
        partial(open_shards, [f"pipe:cat {tar}"], scale=4, cache_dir=folder / "cache"),
        partial(build_index, [tar], scale=4, encoding=encoding),
    ):
        try:
            with mock.patch("srgan_dist.data.remote.cache.time.sleep"):  # before another try
                reading()
        except (UserError, Failure) as error:
            reasons.append(str(error))
    assert all(len(reason.splitlines()) == 1 for reason in reasons)


@pytest.mark.slow
@pytest.mark.parametrize("case", [packed_folder, third_party, from_afar])
def test_damaged_shards_end_in_lines(case: Callable[[Path, random.Random, Path], None], tmp_path: Path) -> None:
    pack_each(tmp_path)
    assert fuzz(partial(case, tmp_path), cases=300, seconds=60) == []
