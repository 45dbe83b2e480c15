"""Writes docs/configuration-reference.md from the configuration's classes: fields, types, limits, defaults, docstrings.

python docs/configuration_reference.py [--check]

With --check it writes nothing, and exits with 1 where the page is not what the classes say.
"""

from __future__ import annotations

import argparse
import re
import sys
from itertools import groupby
from pathlib import Path

from srgan_dist.config.fields import Part, known_keys, parts
from srgan_dist.config.help import describe, in_words, kind, sentence

PAGE = Path(__file__).resolve().parent / "configuration-reference.md"

HEAD = """\
# Configuration reference

<!-- Written by `python docs/configuration_reference.py` from srgan_dist/config/. Do not edit: change the classes. -->

Every key, its type and limits, its default and what it does. A YAML file holds only what differs from the defaults, and
`--section.key=value` on the command line wins over the file: [Configuration](configuration.md) says how. Where a
section has several forms, its `name`, `kind` or `network` chooses one. `null` leaves the choice to the program.

{contents}
"""

_KEYS = known_keys()
_KEY = re.compile(r"(?<![\w.])(\w+(?:\.\w+)+)(?:=\w+)?")


def reference() -> str:
    """The page, as Markdown."""
    sections = {name: list(group) for name, group in groupby(parts(), lambda part: part.path.partition(".")[0])}
    contents = " · ".join(f"[`{name}`](#{name})" for name in sections)
    pieces = [HEAD.format(contents=contents)]
    for name, group in sections.items():
        pieces.append(f"## {name}\n\n{_marked(group[0].description)}\n")
        for part in group:
            pieces += _title(part, name)
            if rows := [_row(part, number) for number in range(len(part.keys))]:
                pieces.append(_table(rows))
            for key in part.keys:
                for item in key.items:
                    pieces += _item(item)
    return "\n".join(pieces)


def _table(rows: list[str]) -> str:
    return "\n".join(["| key | allowed | default | what it does |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _item(part: Part) -> list[str]:
    """What a section in a list may be."""
    assert part.chosen
    title = f"### {part.path}: {part.chosen.key}: {part.chosen.value}\n\n{_marked(describe(part))}\n"
    return [title, _table([_row(part, number, whole=False) for number in range(len(part.keys))])]


def _title(part: Part, section: str) -> list[str]:
    if part.chosen:
        mark = " (default)" if part.is_default else ""
        return [f"### {part.chooser}={part.chosen.value}{mark}\n\n{_marked(describe(part))}\n"]
    return [f"### {part.path}\n\n{_marked(part.description)}\n"] if part.path != section else []


def _row(part: Part, number: int, *, whole: bool = True) -> str:
    key = part.keys[number]
    name = key.name if whole else key.name.rpartition(".")[2]
    text = sentence(key.field)
    if not text:
        raise SystemExit(f"{key.name} has no docstring")
    cells = (f"`{name}`", _marked(kind(key.field)), f"`{_null(in_words(key.default))}`", _marked(text))
    return f"| {' | '.join(cells)} |"


def _null(text: str) -> str:
    return "null" if text == "None" else text


def _marked(text: str) -> str:
    """Text with keys as code, and without what Markdown would take for markup; `code` stays as it is."""

    def marked(part: str) -> str:
        part = re.sub(r"[|<*]", r"\\\g<0>", part)
        part = re.sub(r"\bNone\b", "`null`", part)
        return _KEY.sub(lambda key: f"`{key[0]}`" if key[1] in _KEYS else key[0], part)

    parts = re.split(r"(`[^`]*`)", text)  # every other one is code already
    return "".join(part if part.startswith("`") else marked(part) for part in parts)


def main() -> int:
    """Write the page, or compare it. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args().check:
        PAGE.write_text(reference(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == reference():
        return 0
    sys.stderr.write(f"{PAGE.name} is not what the configuration's classes say: python docs/{Path(__file__).name}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
