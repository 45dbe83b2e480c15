"""Reading what a run wrote, or is writing: whatever stands there, it is read as far as it goes, and never an error."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from srgan_dist.config.yaml_file import read_yaml
from srgan_dist.errors import UserError
from srgan_dist.utils import strict_json
from srgan_dist.utils.dotted import flat
from srgan_dist.utils.files import check_is_file, read_file
from srgan_dist.utils.names import printable
from srgan_dist.utils.secrets import shown_tree

MAX_BYTES = 256 << 20
"""Most bytes that are read of a file of lines: of a longer one, its end."""
_MAX_OBJECT = 16 << 20
_MAX_STEP = 10**18
_MOST_IMAGES = 10_000
_SR = re.compile(r"step-(\d{1,18})\.webp")

Line = Mapping[str, Any]


class SampleImage(NamedTuple):
    """The pictures of a validation image.

    Attributes:
        lr: The LR crop, or None.
        bicubic: What bicubic makes of it, or None.
        hr: The HR crop, or None.
        steps: The generator's, by step, ascending.
    """

    lr: Path | None
    bicubic: Path | None
    hr: Path | None
    steps: Mapping[int, Path]


def read_object(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """A file with one JSON object.

    Args:
        path: The file.
        problems: Receives a line where it is there and cannot be read.

    Returns:
        The object, or None.
    """
    try:
        content = strict_json.loads(read_file(path, max_bytes=_MAX_OBJECT).decode())
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"{path.name}: cannot be read ({error.strerror})")
        return None
    except ValueError:
        problems.append(f"{path.name}: is not JSON")
        return None
    if not isinstance(content, dict):
        problems.append(f"{path.name}: is not a JSON object")
        return None
    return content


def read_lines(path: Path, problems: list[str], *, max_bytes: int = MAX_BYTES) -> list[Line]:
    """The records of a file with one JSON object a line, each of which has its ``step``.

    Args:
        path: The file, which a run may be writing.
        problems: Receives a line for what is left out, but for a last line that is not whole yet.
        max_bytes: Of a longer file, so much of its end is read.

    Returns:
        The records, ascending by step; those of one step as they stand there.
    """
    try:
        check_is_file(path)
        with path.open("rb") as file:
            skipped = max(os.fstat(file.fileno()).st_size - max_bytes, 0)
            file.seek(skipped)
            content = file.read(max_bytes)
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{path.name}: cannot be read ({error.strerror})")
        return []
    if skipped:
        problems.append(f"{path.name}: has more than {max_bytes} bytes; only its end is read")
        content = content.partition(b"\n")[2]
    lines = content.split(b"\n")
    records, others = [], []
    for number, line in enumerate(lines, start=1):
        if (record := _record(line)) is not None:
            records.append(record)
        elif line.strip() and number < len(lines):
            others.append(number)
    if others:
        where = (
            f"line {others[0]} is" if len(others) == 1 else f"{len(others)} lines, the first is line {others[0]}, are"
        )
        problems.append(f"{path.name}: {where} not a record of a step, and left out")
    return sorted(records, key=lambda record: record["step"])


def _record(line: bytes) -> Line | None:
    try:
        record = strict_json.loads(line.decode())
    except ValueError:
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return record if type(step) is int and 0 <= step < _MAX_STEP else None


def read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    """A resolved configuration without secrets, flat, with keys such as ``train.steps``; empty where there is none."""
    try:
        if not path.exists():
            return {}
        content, _ = read_yaml(path)
    except OSError as error:  # not ours to look into
        problems.append(f"{path.name}: cannot be read ({error.strerror})")
        return {}
    except UserError as error:
        problems.append(printable(str(error).replace(str(path), path.name)))
        return {}
    return flat(shown_tree(content))


def read_images(folder: Path, problems: list[str]) -> dict[str, SampleImage]:
    """The pictures in ``samples/IMAGE/``, by the image's name, sorted.

    Args:
        folder: The folder ``samples``; it need not exist.
        problems: Receives a line for what cannot be read.
    """
    images: dict[str, SampleImage] = {}
    for inner in sorted(_entries(folder, problems)):
        if inner.name.startswith(".") or not inner.is_dir():
            continue
        files = {path.name: path for path in _entries(inner, problems)}
        steps = {int(found[1]): path for name, path in files.items() if (found := _SR.fullmatch(name))}
        lr, bicubic, hr = (files.get(f"{kind}.webp") for kind in ("lr", "bicubic", "hr"))
        image = SampleImage(lr, bicubic, hr, dict(sorted(steps.items())))
        if steps or any(image[:3]):
            images[inner.name] = image
        if len(images) >= _MOST_IMAGES:
            problems.append(f"{folder.name}: has more than {_MOST_IMAGES} images; the others are left out")
            break
    return images


def _entries(folder: Path, problems: list[str]) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{folder.name}: cannot be read ({error.strerror})")
        return []
