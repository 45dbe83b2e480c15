"""The tests have the same names, in the same order, wherever and whenever they are collected.

pytest-xdist compares the names that its workers collect, and a test that failed is found again by its name. So none may
hold a time, an address, bytes that a library wrote, or the order of a set.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT, environment

# Every test, also those that `addopts` deselects; a line each.
COLLECT = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider", "tests"]


def test_no_name_depends_on_time_hash_seed_or_place(tmp_path: Path) -> None:
    """Two processes begin in different seconds, with other hash seeds, time zones, home and temporary folders."""
    processes = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        elsewhere = {"PYTHONHASHSEED": str(number), "TZ": f"UTC-{9 * number}"}
        elsewhere |= {
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "OMP_NUM_THREADS": str(1 + number),
            "PYTEST_ADDOPTS": "",
        }
        processes.append(
            subprocess.Popen(COLLECT, cwd=ROOT, env=environment() | elsewhere, text=True, stdout=subprocess.PIPE)
        )
        time.sleep(1.1)
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = ([line for line in output.splitlines() if "::" in line] for output in outputs)
    assert len(first) > 1000
    assert any(name.startswith("tests/slurm/") for name in first)
    assert first == second
    unnamed = [name for name in first if re.search(r"<lambda>|<function|\\x| at 0x|object at", name)]
    assert unnamed == [], "give these parameters ids"
