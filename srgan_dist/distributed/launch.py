"""How this process was started."""

from __future__ import annotations

import psutil


def ranks_asked_for() -> int | None:
    """What the command line of ``accelerate launch`` says, if that is what started this process.

    With ``--cpu`` it starts one process, whatever it was asked for, and says nothing.

    Returns:
        The number of processes asked for, or None.
    """
    parent = psutil.Process().parent()
    try:
        words = parent.cmdline() if parent else []
    except psutil.Error:  # not ours to look at
        return None
    if "launch" not in words or not any(word.endswith("accelerate") for word in words):
        return None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name in ("--num_processes", "--num-processes"):
            value = value or following
            return int(value) if value.isdigit() else None
    return None
