"""Kills a training again and again, resumes it, and counts what was lost, repeated or left behind.

python -m tests.ranks.kills --kills 200 [--seed 0]      on one and two ranks, with 0 and 2 loader workers

A kill is a SIGKILL at a random moment: of the launcher, where there is one, in half of the cases, else of a rank, a
loader worker, or of all at once. What is left of the run then has 30 seconds to end by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from srgan_dist.checkpointing.manager import finished, step_of
from srgan_dist.data.packing.pack import pack
from tests.conftest import options, write_images
from tests.ranks.processes import start

EVERY = 20  # steps between two checkpoints
SETUPS = [(1, 0), (1, 2), (2, 0), (2, 2)]  # ranks, loader workers of each
CHANGES: dict[str, Any] = {"checkpoint.every": EVERY, "loss.perceptual.weight": 0, "train.steps": 10**6}


@dataclass
class Totals:
    """What came of the kills.

    Attributes:
        kills: How many there were.
        of_launcher: Of these, of the launcher alone.
        of_worker: Of these, of a loader worker alone.
        before_first_step: Of these, before the run had taken a step.
        lost: Steps that were logged and had to be taken again.
        lost_without_need: Of these, after a kill that left every rank alive, so that all could be saved.
        most_lost: The most after one kill.
        repeated: Steps that stand twice in metrics.jsonl.
        missing: Steps that are missing there.
        other_values: Steps whose logged values are not those of the undisturbed run.
        orphans: Processes that lived on for 30 seconds.
        leftovers: Temporary files in the folder of the run at its end.
    """

    kills: int = 0
    of_launcher: int = 0
    of_worker: int = 0
    before_first_step: int = 0
    lost: int = 0
    lost_without_need: int = 0
    most_lost: int = 0
    repeated: int = 0
    missing: int = 0
    other_values: int = 0
    orphans: int = 0
    leftovers: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nothing went wrong: a killed rank may cost the steps since the last checkpoint, nothing else."""
        wrong = self.lost_without_need, self.repeated, self.missing, self.other_values, self.orphans, self.leftovers
        # One checkpoint may be under way when the rank dies.
        return not any(wrong) and self.most_lost <= 2 * EVERY


def whole_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that a killed process wrote to their end."""
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def last_step(folder: Path) -> int:
    """The last step that was logged."""
    return max((line["step"] for line in whole_lines(folder)), default=0)


def last_checkpoint(folder: Path) -> int:
    """The step of the newest checkpoint; each is complete or absent."""
    return max(map(step_of, finished(folder / "checkpoints")), default=0)


def kill_once(folder: Path, arguments: list[str], *, ranks: int, chance: random.Random, totals: Totals) -> None:
    """Start or resume a run, kill something of it, and wait for the end of the rest."""
    launched = ranks > 1 or chance.random() < 0.3
    lines, before = whole_lines(folder), last_step(folder)
    process = start(ranks, arguments, launched=launched)
    if chance.random() < 0.8:  # else it is killed while it starts
        while last_step(folder) <= before and process.poll() is None:
            time.sleep(0.05)
    time.sleep(chance.uniform(0, 3))
    head = psutil.Process(process.pid)
    family = [head, *head.children(recursive=True)]
    ranks_alive = [one for one in family if one.is_running() and (one.ppid() == head.pid) == launched and one != head]
    ranks_alive = (ranks_alive if launched else [head]) or [head]
    workers = [one for one in family if one != head and one not in ranks_alive]
    what = chance.choice(["launcher"] * 4 * launched + ["rank", "rank", "all", *(["worker"] if workers else [])])
    victims = {"launcher": [head], "rank": ranks_alive, "worker": workers, "all": family}[what]
    for victim in victims if what == "all" else [chance.choice(victims)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    _, alive = psutil.wait_procs([one for one in family if one != head], timeout=30)
    for orphan in alive:
        orphan.kill()
    process.communicate()
    # A run that was killed before it resumed has lost nothing; the lines there are those of the run before.
    lost = max(0, last_step(folder) - last_checkpoint(folder)) if whole_lines(folder) != lines else 0
    totals.kills += 1
    totals.of_launcher += what == "launcher"
    totals.of_worker += what == "worker"
    totals.before_first_step += last_step(folder) == before
    totals.lost += lost
    totals.most_lost = max(totals.most_lost, lost)
    totals.lost_without_need += lost if what in ("launcher", "worker") else 0
    totals.orphans += len(alive)


def compare(killed: list[dict[str, Any]], undisturbed: list[dict[str, Any]], totals: Totals) -> None:
    """Compare the metrics of a killed run with those of an undisturbed one."""
    steps = [line["step"] for line in killed]
    totals.repeated += len(steps) - len(set(steps))
    totals.missing += len(undisturbed) - len(set(steps))
    expected = {line["step"]: line for line in undisturbed}
    for line in killed:
        other = expected.get(line["step"], {})
        keys = [key for key in line if not key.startswith(("perf/", "time", "hours"))]
        if different := {key: (line[key], other.get(key)) for key in keys if line[key] != other.get(key)}:
            totals.other_values += 1
            sys.stderr.write(f"step {line['step']}: {different}\n")


def run_setup(folder: Path, shards: Path, *, ranks: int, workers: int, kills: int, chance: random.Random) -> Totals:
    """Kill one run again and again, let it end, and compare it with an undisturbed one."""
    totals = Totals()
    base = CHANGES | {"data.train": shards, "data.workers": workers}
    arguments = options(base | {"run.dir": folder / "killed"})
    while totals.kills < kills:
        kill_once(folder / "killed", arguments, ranks=ranks, chance=chance, totals=totals)
    end = f"--train.steps={last_step(folder / 'killed') + 3}"
    for name in ("killed", "undisturbed"):
        process = start(ranks, [*options(base | {"run.dir": folder / name}), end])
        err = process.communicate()[1]
        assert process.returncode == 0, err
    compare(whole_lines(folder / "killed"), whole_lines(folder / "undisturbed"), totals)
    temporary = [path for path in (folder / "killed").rglob("*") if path.name.startswith(".")]
    totals.leftovers = len(temporary)
    return totals


def main(arguments: Sequence[str]) -> int:
    """Run all set-ups; returns 0 where nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    sound = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images")
        pack(folder / "images", folder / "shards", scale=4, tile=96)
        for number, (ranks, workers) in enumerate(SETUPS):
            totals = run_setup(
                folder / str(number),
                folder / "shards",
                ranks=ranks,
                workers=workers,
                kills=options.kills // len(SETUPS),
                chance=random.Random(f"{options.seed} {number}"),
            )
            sys.stdout.write(json.dumps({"ranks": ranks, "workers": workers, **asdict(totals)}) + "\n")
            sys.stdout.flush()
            sound = sound and totals.is_sound
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
