"""Reading ahead in a thread: one item, errors at their place, and an end that never hangs."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from srgan_dist.data.loading.read_ahead import ReadAhead


def wait_until(condition: threading.Event) -> None:
    assert condition.wait(10)


def test_items_come_in_order_and_end() -> None:
    ahead = ReadAhead(iter(range(100)))
    assert list(ahead) == list(range(100))
    assert list(ahead) == []


def test_one_item_is_taken_ahead_and_no_more() -> None:
    taken: list[int] = []
    reached = [threading.Event() for _ in range(10)]

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            reached[number].set()
            yield number

    ahead = ReadAhead(items())
    for number in range(9):
        wait_until(reached[number])  # before it is asked for
        time.sleep(0.01)
        assert taken == list(range(number + 1))
        assert next(ahead) == number
    ahead.close()


def test_an_error_is_raised_at_its_place_and_by_every_later_call() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    ahead = ReadAhead(items())
    assert next(ahead) == 1
    for _ in range(3):
        with pytest.raises(OSError, match="the disk is gone"):
            next(ahead)


def test_closing_ends_the_thread() -> None:
    before = set(threading.enumerate())
    ahead = ReadAhead(itertools.count())
    assert next(ahead) == 0
    assert len(set(threading.enumerate()) - before) == 1
    ahead.close()
    ahead.close()
    assert set(threading.enumerate()) == before


@pytest.fixture
def silent() -> Iterator[ReadAhead[int]]:
    """Waits for an item that never comes."""
    answer = threading.Event()

    def items() -> Iterator[int]:
        answer.wait()
        yield 1

    yield ReadAhead(items())
    answer.set()


def test_closing_does_not_wait_for_what_does_not_come(silent: ReadAhead[int]) -> None:
    silent.close()  # else for ever, or until pytest's own limit


def test_a_signal_interrupts_waiting(silent: ReadAhead[int]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(silent)
    finally:
        signal.signal(signal.SIGINT, before)
