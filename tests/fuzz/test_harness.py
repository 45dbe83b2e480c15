"""The harness sees a crash, a hang, a flood of memory, a traceback and a second line, and goes on after each."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from srgan_dist.errors import UserError
from tests.fuzz.harness import fuzz, mutate


def case_of(rng: random.Random) -> int:
    """A case does not know its number; its random numbers tell it."""
    drawn = rng.random()
    return next(number for number in range(9) if random.Random(number).random() == drawn)


def every_end(rng: random.Random, folder: Path) -> None:
    (folder / "left behind").touch(exist_ok=False)
    match case_of(rng):
        case 0:
            raise UserError("the file is damaged")
        case 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 2:
            raise KeyError("key")
        case 3:
            time.sleep(600)
        case 4:
            raise UserError("damaged,\nin two lines")
        case 5:
            bytearray(2**31)


def test_every_end_that_is_not_one_line_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUZZ_CASES", raising=False)
    monkeypatch.delenv("FUZZ_FIRST", raising=False)
    findings = {finding.case: finding.what for finding in fuzz(every_end, cases=7, seconds=3)}
    assert list(findings) == [1, 2, 3, 4, 5]
    assert "exit code -11" in findings[1]
    assert "KeyError: 'key'" in findings[2]
    assert "took longer than 3 s" in findings[3]
    assert "time.sleep(600)" in findings[3] or "every_end" in findings[3]
    assert "not one line" in findings[4]
    assert "MemoryError" in findings[5]


def test_a_single_case_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZ_FIRST", "2")
    monkeypatch.setenv("FUZZ_CASES", "1")
    assert [finding.case for finding in fuzz(every_end, cases=7)] == [2]


def test_damage_is_drawn_from_the_seed_alone_and_is_damage() -> None:
    content = bytes(range(256)) * 20 + b'{"bytes": 1234}'
    damaged = [mutate(content, random.Random(seed)) for seed in range(500)]
    assert damaged == [mutate(content, random.Random(seed)) for seed in range(500)]
    assert sum(other == content for other in damaged) < 10
    assert len(set(damaged)) > 400
    assert any(len(other) < len(content) for other in damaged)
    assert any(len(other) > len(content) for other in damaged)
    assert mutate(b"", random.Random(0)) is not None
