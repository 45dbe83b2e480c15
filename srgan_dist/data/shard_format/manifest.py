"""The manifest of a packed folder: what its shards hold and what they were made from."""

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
    """A shard's entry in the manifest.

    Attributes:
        name: File name, ending in .tar.
        bytes: Size of the file.
        sha256: Digest of the file, in hexadecimal.
        samples: Number of samples.
    """

    name: str
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of manifest.json; its fields are specified in shards/README.md.

    Attributes:
        scale: HR pixels per LR pixel.
        tile: Greatest side of an HR tile in pixels.
        encoding: How the members' pixels are stored, one of `encodings.ENCODINGS`.
        kernel: How the LR images were made, in words.
        num_samples: Tiles in all shards.
        num_images: Images that the tiles were cut from.
        index_sha256: sha256 of index.npy, in hexadecimal.
        shards: The shards, in the order of the index's shard numbers.
        created_by: Program and version.
        num_skipped: Files left out because they could not be used; skipped.txt names them.
        num_small: Images left out because they were small.
        num_flat: Tiles left out because they had little detail.
        num_reencoded: Images encoded as JPEG by the packer, with loss.
        num_validation: Images held out in validation/.
        format_version: Version of the layout, `FORMAT_VERSION`.
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
        """Format the manifest as JSON, the same bytes for the same content."""
        content = asdict(self) | {"shards": [shard._asdict() for shard in self.shards]}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def read_manifest(path: str | Path) -> Manifest:
    """Read the manifest of a packed folder.

    Args:
        path: The folder, or its manifest.json.

    Returns:
        The manifest, with its fields checked; the shards' files are not opened.

    Raises:
        UserError: It is missing, is not a manifest of shards, or has an unsupported format version or encoding.
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
    """Return the path of a packed folder's manifest, which may be missing.

    Args:
        path: The folder, or its manifest.json.

    Returns:
        The path of manifest.json.
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
