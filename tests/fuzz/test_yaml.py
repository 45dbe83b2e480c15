"""Damaged and hostile configuration files: whatever one holds, it is a configuration or one line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from srgan_dist.config.load import load_config
from srgan_dist.config.root import Config
from tests.conftest import ROOT
from tests.fuzz.harness import fuzz, mutate

FILES = [path.read_text() for path in sorted((ROOT / "configs").glob("*.yaml"))]
WRITTEN = Config().to_yaml()  # as in a run's folder: every key
SHARED = """
generator: &g {name: rrdb, channels: &n 64}
optimizer:
  generator: &o {learning_rate: 0.1, milestones: [1, 2]}
  discriminator: {<<: *o, learning_rate: 2e-4}
train: {steps: *n}
"""
# What the syntax trips over, rather than bytes: put between two lines, or for a value.
PIECES = (
    "&a", "*a", "*g", "<<: *o", "<<: [*o, *o]", "!!python/object:os.system x", "!!int", "!!binary x", "!!set {a}",
    "? [a]", "---", "...", "%YAML 1.1", "%TAG ! tag:x,2000:", "{{{{", "[[[[", "}", "]", "|", ">-", "'", '"', "\t", "#",
    "2026-13-45", "1:1:1:1:1",
    "0x" + "f" * 500, "9" * 5000, ".inf", ".nan", "-.inf", "~", "yes", "=", '"\\0"', '"\\x85"',
    '"\\uD800"', "\u2028", "\ufeff", "\x00", "\x1b", "- - - - - -", "a: b: c", "0o17", "1e999", "!!timestamp x",
)  # fmt: skip


def read_damaged(rng: random.Random, folder: Path) -> None:
    """One file with bytes changed, pieces put in, lines moved, or its values exchanged."""
    text = rng.choice([*FILES, WRITTEN, WRITTEN, SHARED])
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
        lines = text.split("\n")
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        key, colon, value = lines[at].partition(":")
        match rng.randrange(5):
            case 0:
                lines.insert(at, " " * rng.randrange(6) + rng.choice(PIECES))
            case 1:
                lines[at] = f"{key}: {rng.choice(PIECES)}"
            case 2:
                lines[at] = f"{key}{colon} {lines[other].partition(':')[2]}"
            case 3:
                lines[at : at + rng.randrange(1, 4)] = lines[other : other + rng.randrange(4)]
            case 4:
                lines[at] = f"{key}: {rng.choice(PIECES)} {value}"
        text = "\n".join(lines)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.6:
        data = mutate(data, rng)
    (folder / "c.yaml").write_bytes(data)
    config = load_config(folder / "c.yaml")
    (folder / "c.yaml").write_text(config.to_yaml())
    assert load_config(folder / "c.yaml") == config


def nest(rng: random.Random, folder: Path) -> None:
    """Lists, mappings and aliases in each other, as deep and as often as a short program makes them."""
    depth = rng.choice((2, 19, 20, 21, 100, 1000, 50_000))
    levels = min(depth, 200)
    text = rng.choice(
        (
            "train: " + "[" * depth,
            "train: " + "{a: " * depth,
            "train: " + "- " * depth,
            "train: " + "? " * depth,
            "train: " + "[" * depth + "]" * depth,
            "\n".join(" " * n + "a:" for n in range(levels)),
            "\n".join(["a0: &a0 {b: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, levels)]),
            "\n".join(["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]),
            "\n".join(f"a{n}: &a{n} [*a{rng.randrange(n + 1)}]" for n in range(levels)),
        )
    )
    (folder / "c.yaml").write_text(text)
    load_config(folder / "c.yaml")


@pytest.mark.slow
def test_a_damaged_configuration_is_one_or_one_line() -> None:
    assert fuzz(read_damaged, cases=1500) == []


@pytest.mark.slow
def test_nesting_without_end_is_one_line() -> None:
    assert fuzz(nest, cases=150) == []
