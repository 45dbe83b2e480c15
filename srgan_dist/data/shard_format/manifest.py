"""The manifest of a packed folder: what its shards hold and what they were made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from srgan_dist.data.shard_format.encodings import Encoding
from srgan_dist.errors import UserError
from srgan_dist.utils.files import read_file

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 32 << 20  # more than 150,000 shards

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Side = Annotated[int, Field(ge=1, lt=2**16)]  # what a row of the index can hold
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# In its own folder, and without what would break a line of a message.
_ShardName = Annotated[str, Field(pattern=r"^[^/\p{C}\p{Zl}\p{Zp}]+\.tar$")]


class ShardEntry(NamedTuple):
    """A shard's entry in the manifest.

    Attributes:
        name: File name, ending in .tar.
        bytes: Size of the file.
        sha256: Digest of the file, in hexadecimal.
        samples: Number of samples.
    """

    name: _ShardName
    bytes: _Count
    sha256: _Sha256
    samples: _Count


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

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    scale: _Side
    tile: _Side
    encoding: Encoding
    kernel: str
    num_samples: Annotated[_Count, Field(ge=1)]
    num_images: _Count
    index_sha256: _Sha256
    shards: tuple[ShardEntry, ...]
    created_by: str
    num_skipped: _Count = 0
    num_small: _Count = 0
    num_flat: _Count = 0
    num_reencoded: _Count = 0
    num_validation: _Count = 0
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
    if not path.exists():
        raise UserError(f"{path}: does not exist, expected a folder made by `srgan-dist pack`")
    try:
        content = read_file(path, max_bytes=MAX_MANIFEST_BYTES)
        version = _VERSION.validate_json(content)["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(f"{path}: format version {version!r}, this program reads {FORMAT_VERSION}: pack again")
        return _MANIFEST.validate_json(content, strict=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): copy it again") from error
    except ValidationError as error:
        raise UserError(f"{path}: is not a manifest of packed shards ({_reason(error)}): pack again") from error


def manifest_path(path: str | Path) -> Path:
    """Return the path of a packed folder's manifest, which may be missing.

    Args:
        path: The folder, or its manifest.json.

    Returns:
        The path of manifest.json.
    """
    path = Path(path)
    return path if path.name == MANIFEST_NAME else path / MANIFEST_NAME


class _Version(TypedDict):
    format_version: Any


_VERSION, _MANIFEST = TypeAdapter(_Version), TypeAdapter(Manifest)


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where, what = ".".join(map(str, first["loc"])), str(first["msg"]).splitlines()[0]
    found = f"{where} is {repr(first['input'])[:60]}: " if where else ""
    return found + what[0].lower() + what[1:]
