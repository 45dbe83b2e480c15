"""Damages files at random and runs the program on them: whatever a file holds, the program ends in one line.

A native crash, a hang or a flood of memory kills the process that reads the file. So cases run in a child process,
which says before each case which one it is at; the parent notes how the child ended and goes on with the next case.

A case is drawn from its number alone, so each can be repeated: a finding names its number, and

    FUZZ_FIRST=4711 FUZZ_CASES=1 python -m pytest tests/fuzz/test_checkpoints.py

runs that one; ``FUZZ_CASES=10000`` makes a long run of what is short in CI.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from srgan_dist.errors import Failure, UserError

Case = Callable[[random.Random, Path], None]
"""Damages something and has it read: given random numbers of its own and an empty folder, it returns or raises."""

_EXTREMES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_NUMERALS = (b"0", b"-1", b"1e999", b"NaN", b"null", b"3.5", b"65536", b"1000000000", b"9" * 19, b"9" * 40, b"9" * 5000)
_BYTES = (0x00, 0x0A, 0x20, 0x22, 0x7F, 0x80, 0xFF)
_EDGE = 1024  # formats say at their beginning or end what they hold
_STARTING = 120.0  # seconds for a child to import what it runs, on a busy machine


@dataclass(frozen=True)
class Finding:
    """A case that did not end as it should.

    Attributes:
        case: Its number.
        what: How it ended: a traceback, a signal, a time limit.
    """

    case: int
    what: str

    def __str__(self) -> str:
        return f"case {self.case}: {self.what}"


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Damage some bytes, once or a few times, as a bad disk or a bad person does.

    Args:
        content: What a file holds.
        rng: Decides what happens to it.

    Returns:
        Something else; rarely, since two damages can undo each other, the same.
    """
    damaged = bytearray(content)
    rng.choice((_flip, _flip, _damage, _damage, _damage_often))(damaged, rng)
    return bytes(damaged)


def _flip(content: bytearray, rng: random.Random) -> None:
    """A single bit, the smallest damage."""
    if content:
        content[_position(content, rng)] ^= 1 << rng.randrange(8)


def _damage_often(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(2, 8)):
        _damage(content, rng)


def _damage(content: bytearray, rng: random.Random) -> None:
    start = _position(content, rng)
    end = min(len(content), start + rng.choice((1, 2, 4, 8, 64, 1024)))
    size = rng.choice((1, 2, 4, 8))
    kind = rng.randrange(9)
    if kind == 0:
        content[start : start + 1] = bytes([rng.choice(_BYTES)])
    elif kind == 1:
        content[start:end] = rng.randbytes(end - start)
    elif kind == 2:
        del content[start:end]
    elif kind == 3:
        content[start:start] = content[start:end]
    elif kind == 4:
        del content[start:]
    elif kind == 5:
        content[start:start] = rng.randbytes(rng.choice((1, 8, 100)))
    elif kind == 6:
        number = rng.choice(_EXTREMES) % 2 ** (8 * size)
        content[start : start + size] = number.to_bytes(size, rng.choice(("little", "big")))
    elif kind == 7:
        other = _position(content, rng)
        content[start:end] = content[other : other + end - start]
    else:
        _damage_a_number(content, rng)


def _damage_a_number(content: bytearray, rng: random.Random) -> None:
    """Put another number in the place of one that is written out, as in JSON, YAML and tar's headers."""
    start = _position(content, rng)
    while start < len(content) and not chr(content[start]).isdigit():
        start += 1
    end = start
    while end < len(content) and chr(content[end]).isdigit():
        end += 1
    content[start:end] = rng.choice(_NUMERALS)


def _position(content: bytearray, rng: random.Random) -> int:
    if not content:
        return 0
    near = min(_EDGE, len(content))
    return rng.choice(
        (rng.randrange(len(content)), rng.randrange(near), len(content) - 1 - rng.randrange(near)),
    )


def fuzz(case: Case, *, cases: int, seconds: float = 30.0, memory: int = 2**30) -> list[Finding]:
    """Run many cases in child processes, and list those that ended otherwise than well or in one line.

    A case ends well by returning, or by a `UserError` or `Failure` of one line. Any other exception, a warning, a log
    line that is several, a signal, too much time or memory is a finding.

    Args:
        case: A function of a module, or a partial of one, since it is sent to the children.
        cases: How many, unless the environment's FUZZ_CASES says otherwise; FUZZ_FIRST is the first one's number.
        seconds: Most time for a case. Generous: it is there for what never ends.
        memory: Most bytes that a case may allocate, touched or not.

    Returns:
        The findings, by case. A test compares them with an empty list.
    """
    number = int(os.environ.get("FUZZ_FIRST", "0"))
    end = number + int(os.environ.get("FUZZ_CASES", cases))
    findings: list[Finding] = []
    while number < end:
        number = _run_child(case, range(number, end), findings, seconds=seconds, memory=memory)
    return findings


def _run_child(case: Case, numbers: range, findings: list[Finding], *, seconds: float, memory: int) -> int:
    """Run cases in one child for as long as it lives. Returns the number of the next case."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["srgan_dist.training.run", "tests.fuzz.harness"])
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        child = context.Process(
            target=_child, args=(case, numbers, sender, Path(folder), errors), kwargs={"limit": memory}
        )
        child.start()
        sender.close()
        at, patience = numbers.start, _STARTING
        try:
            while receiver.poll(patience):
                message = receiver.recv()
                if isinstance(message, Finding):
                    findings.append(message)
                elif message == numbers.stop:
                    child.join()
                    return numbers.stop
                else:
                    at, patience = message, seconds
            os.kill(child.pid or 0, signal.SIGABRT)  # faulthandler writes where it hangs
            how = f"took longer than {patience:g} s"
            child.join(5)
        except EOFError:
            child.join(5)
            how = f"killed the process (exit code {child.exitcode})"
        child.kill()
        child.join()
        findings.append(Finding(at, f"{how}\n{errors.read_text(errors='replace')[-4000:]}"))
    return at + 1


class _Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


def _child(case: Case, numbers: range, sender: Connection, folder: Path, errors: Path, *, limit: int) -> None:
    with errors.open("wb") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable()
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logged = _Lines()
    logging.getLogger().addHandler(logged)
    for number in numbers:
        sender.send(number)
        os.truncate(errors, 0)
        os.lseek(2, 0, os.SEEK_SET)
        logged.messages.clear()
        place = folder / "case"
        place.mkdir()
        _limit_memory(limit)
        try:
            case(random.Random(number), place)
        except (UserError, Failure) as error:
            logged.messages.append(str(error))
        except BaseException:  # noqa: BLE001 - the finding
            sender.send(Finding(number, traceback.format_exc()))
        for message in logged.messages:
            if len(message.splitlines()) != 1:
                sender.send(Finding(number, f"not one line: {message!r}"))
        shutil.rmtree(place)
    sender.send(numbers.stop)


def _limit_memory(more: int) -> None:
    """Refuse allocations beyond what the process has now and some more."""
    status = Path("/proc/self/status").read_text()
    (held,) = (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (held + more, resource.RLIM_INFINITY))
