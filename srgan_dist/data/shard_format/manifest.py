"""The manifest beside the shards: what they hold and what they were made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from srgan_dist.data.shard_format.encodings import ENCODINGS, Encoding
from srgan_dist.errors import UserError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"


class ShardEntry(NamedTuple):
    """One shard in the manifest: file name, size in bytes, sha256 in hexadecimal, number of samples."""

    name: str
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of shards holds.

    Attributes:
        scale: HR pixels per LR pixel.
        tile: greatest side of an HR tile in pixels.
        encoding: how the members' pixels are stored, one of `codec.ENCODINGS`.
        kernel: in words, how the LR images were made.
        num_samples: tiles in all shards.
        num_images: images they were cut from.
        index_sha256: sha256 of index.npy, in hexadecimal.
        shards: the shards, in the order of the index's shard numbers.
        created_by: program and version.
        num_skipped: files left out because they could not be used; skipped.txt names them.
        num_small: images left out because they were small.
        num_flat: tiles left out because they had little detail.
        num_reencoded: images encoded as JPEG by the packer, with loss.
        num_validation: images put aside in validation/.
        format_version: of the layout, `FORMAT_VERSION`.
    """

    scale: int
    tile: int
    encoding: Encoding
    kernel: str
    num_samples: int
    num_images: int
    index_sha256: str
    shards: tuple[ShardEntry, ...]
    created_by: str
    num_skipped: int = 0
    num_small: int = 0
    num_flat: int = 0
    num_reencoded: int = 0
    num_validation: int = 0
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Write the manifest as JSON text, the same bytes for the same content."""
        content = asdict(self) | {"shards": [shard._asdict() for shard in self.shards]}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def read_manifest(path: str | Path) -> Manifest:
    """Read the manifest of a packed folder.

    Args:
        path: the folder, or its manifest.json.

    Returns:
        The manifest, its own fields checked; the shards' files are not looked at.

    Raises:
        UserError: it is missing, is not such a manifest, or is of another format version or encoding.
    """
    path = manifest_path(path)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(f"{path}: format version {version!r}, this program reads {FORMAT_VERSION}: pack again")
        content["shards"] = tuple(ShardEntry(**entry) for entry in content["shards"])
        manifest = Manifest(**content)
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist, expected a folder made by `srgan-dist pack`") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no detail'}"
        raise UserError(f"{path}: is not a manifest of packed shards ({reason}): pack again") from error
    _refuse_bad_manifest(path, manifest)
    return manifest


def manifest_path(path: str | Path) -> Path:
    """Find the manifest of a packed folder.

    Args:
        path: the folder, or its manifest.json.

    Returns:
        The path of manifest.json, which may be missing.
    """
    path = Path(path)
    return path if path.name == MANIFEST_NAME else path / MANIFEST_NAME


def _refuse_bad_manifest(path: Path, manifest: Manifest) -> None:
    if manifest.encoding not in ENCODINGS:
        raise UserError(f"{path}: encoding {manifest.encoding!r}, this program reads {', '.join(ENCODINGS)}")
    for field in ("scale", "tile", "num_samples"):
        value = getattr(manifest, field)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{path}: {field} is {value!r}, expected a whole number >= 1: pack again")
    for shard in manifest.shards:
        if Path(shard.name).name != shard.name or not shard.name.endswith(".tar"):
            raise UserError(f"{path}: shard name {shard.name!r}, expected a file name ending in .tar")
