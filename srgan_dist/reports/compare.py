"""The comparison of runs: what the page shows, read from their folders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from srgan_dist.errors import UserError
from srgan_dist.records.metrics import LABELS, METRICS
from srgan_dist.records.run import RunRecord, State, Value, find_runs, finite, read_run
from srgan_dist.reports.assets import Embedded, embed
from srgan_dist.reports.configurations import (
    completed,
    differing_keys,
    group_names,
    mean_and_spread,
    run_names,
    seed_groups,
)
from srgan_dist.reports.crops import Crop, Crops, PairedImage, pair
from srgan_dist.reports.series import curves, rows_for, series
from srgan_dist.reports.sheets import crops_of_sheets
from srgan_dist.utils import strict_json
from srgan_dist.utils.measures import ALWAYS
from srgan_dist.utils.names import printable

MAX_BYTES = 30_000_000
"""Of a page."""
_PAGE_BYTES = 500_000  # of its program and its styles
_SAME = 5e-4  # relative: bicubic on the same images differs between machines in rounding alone

Payload = dict[str, Any]
Values = Mapping[str, Value | None]


def compare(arguments: Sequence[Path], *, max_bytes: int = MAX_BYTES) -> Payload:
    """Read runs, and put together what a page that compares them shows.

    Args:
        arguments: Folders of runs, or folders with runs below.
        max_bytes: Of the page; for it, older crops become lossy, and fewer.

    Returns:
        What the page's template takes, in JSON's types: see ``docs/compare.md``.

    Raises:
        UserError: There is no run in any of them.
    """
    folders, notes = find_folders(arguments)
    payload = to_payload(map(read_run, folders), num_runs=len(folders), notes=notes, max_bytes=max_bytes)
    if all(run["state"] == State.BROKEN.value for run in payload["runs"]):
        reasons = [*notes, *(f"{run['folder']}: {run['note'] or 'broken'}" for run in payload["runs"])]
        raise UserError(f"nothing to compare: {'; '.join(reasons)}")
    return payload


def find_folders(arguments: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The folders of runs that arguments mean, absolute and each once, and what of the arguments means none."""
    folders: dict[Path, None] = {}
    notes = []
    for path in arguments:
        found = find_runs(path) if path.is_dir() else []
        if not found:
            notes.append(f"{path}: {_why_none(path)}")
        folders |= {folder.resolve(): None for folder in found}
    return list(folders), list(map(printable, notes))


def _why_none(path: Path) -> str:
    if path.is_dir():
        return "no run in it"
    return "not a folder" if path.exists() else "there is no such folder"


def to_payload(
    records: Iterable[RunRecord], *, num_runs: int, notes: Sequence[str] = (), max_bytes: int = MAX_BYTES
) -> Payload:
    """Put together what the page shows of runs.

    Args:
        records: The runs; what one has logged is not held any longer than it is read.
        num_runs: How many there are.
        notes: What was left out before, a line each.
        max_bytes: Of the page.
    """
    kept: list[RunRecord] = []
    runs: list[dict[str, Any]] = []
    last: list[Values] = []
    validated: list[frozenset[str]] = []
    for record in records:
        config = completed(record.config)
        curves_of_run = series(record.metrics, most_rows=rows_for(num_runs))
        values = {key: record.final(key) for key in METRICS}
        facts = _facts(record, config) | {"final": {key: value and value.value for key, value in values.items()}}
        runs.append({"id": len(runs), **facts, "config": config, "series": curves_of_run})
        last.append(values)
        validated.append(frozenset(str(row.get("image")) for row in record.validation))
        kept.append(replace(record, metrics=(), validation=()))
    measured = [key for key in METRICS if any(values[key] for values in last)] or [f"val/{name}" for name in ALWAYS]
    names = run_names([record.folder for record in kept])
    configs = [run["config"] for run in runs]
    groups, differing = seed_groups(configs), differing_keys(configs)
    baseline, incomparable = _baseline(kept, names)
    incomparable = incomparable or _other_images(validated, names)
    for at, run in enumerate(runs):
        run |= {"name": names[at], "group": next(number for number, of in enumerate(groups) if at in of)}
        run["config"] = {key: run["config"].get(key) for key in differing}
    payload: Payload = {
        "title": f"Comparison of {len(runs)} {'run' if len(runs) == 1 else 'runs'}",
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "version": version("srgan-dist"),
        "metrics": [_metric(key) for key in measured],
        "runs": runs,
        "groups": [
            {"name": name, "runs": group, "final": _group_final([last[run] for run in group], measured)}
            for name, group in zip(group_names(groups, names, configs), groups, strict=True)
        ],
        "differing": differing,
        "curves": curves(key for run in runs for key in run["series"]["values"]),
        "baseline": baseline,
    }
    room = max_bytes - _PAGE_BYTES - len(strict_json.dumps(payload))
    embedded = _embed(kept, runs, configs, max_bytes=room)
    for run in runs:
        # Its folder is said once.
        run["problems"] = [problem.replace(f"{run['folder']}/", "") for problem in run["problems"]]
        run["crops"] = {str(image): steps for image, steps in embedded.crops.get(run["id"], {}).items()}
    return payload | {
        "images": embedded.images,
        "assets": embedded.assets,
        "notes": [*notes, *incomparable, *embedded.notes],
    }


def _metric(key: str) -> dict[str, Any]:
    measure = LABELS[key]
    return {
        "key": key,
        "label": measure.label,
        "unit": measure.unit,
        "better": measure.goal,
        "digits": measure.digits,
    }


def _facts(record: RunRecord, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's row says."""
    result = record.result or {}
    memory = [value for row in record.metrics if (value := finite(row.get("perf/memory_gib"))) is not None]
    images = [value for row in (*record.metrics, result) if (value := finite(row.get("images"))) is not None]
    seed, ratio = config.get("run.seed"), config.get("train.g_per_d")
    return {
        "folder": printable(str(record.folder)),
        "state": record.state.value,
        "note": _note(record),
        "seed": seed if isinstance(seed, int) else None,
        "step": record.step,
        "planned_steps": record.planned_steps,
        "images": images[-1] if images else None,
        "hours": record.hours,
        "parameters": finite(result.get("parameters")),
        "memory_gib": max(memory, default=None),
        "n": ratio if ratio == "auto" else finite(ratio),
        "best": {key: best._asdict() if (best := record.best(key)) else None for key in METRICS},
        "problems": [printable(problem) for problem in record.problems if problem != record.reason],
    }


def _note(record: RunRecord) -> str | None:
    """Why a run ended, or else what it was alerted to."""
    alerts = [row for row in record.metrics if row.get("alert")]
    if record.reason or not alerts:
        return record.reason and printable(record.reason)
    of = f"{len(alerts)} alerts, the last" if len(alerts) > 1 else "an alert"
    return printable(f"{of} at step {alerts[-1].get('step')}: {alerts[-1]['alert']}")


def _group_final(runs: Sequence[Values], metrics: Iterable[str]) -> dict[str, Any]:
    """Mean and spread of the last values of those runs that got furthest: others are on their way there."""
    found = {}
    for key in metrics:
        last = [final for run in runs if (final := run[key])]
        furthest = max((step for _, step in last), default=None)
        found[key] = mean_and_spread([value for value, step in last if step == furthest])
    return found


def _baseline(records: Sequence[RunRecord], names: Sequence[str]) -> tuple[dict[str, float] | None, list[str]]:
    """What bicubic reaches on the validation images, where that is the same for all runs, and a note if it is not."""
    baseline: dict[str, float] = {}
    differing: dict[str, tuple[str, str]] = {}
    for key in METRICS:
        name = key.removeprefix("val/")
        qualities = [(record.result or {}).get("bicubic") for record in records]
        found = [
            (value, names[at])
            for at, quality in enumerate(qualities)
            if isinstance(quality, Mapping) and (value := finite(quality.get(name))) is not None
        ]
        if not found:
            continue
        (low, low_run), (high, high_run) = min(found), max(found)
        if math.isclose(low, high, rel_tol=_SAME):
            baseline[key] = found[0][0]
        else:
            differing[_metric(key)["label"]] = low_run, high_run
    if not differing:
        return baseline or None, []
    low_run, high_run = next(iter(differing.values()))
    *others, last = differing
    labels = f"{', '.join(others)} and {last}" if others else last
    what = f"Bicubic has another {labels} in {low_run} than in {high_run}"
    return baseline or None, [
        f"{what}: other images were validated, or another network measured, so that the runs do not compare in this."
    ]


def _other_images(validated: Sequence[frozenset[str]], names: Sequence[str]) -> list[str]:
    """What to know where runs, finished or not, were validated on images of other names."""
    first: dict[frozenset[str], str] = {}
    for images, name in zip(validated, names, strict=True):
        if images:
            first.setdefault(images, name)
    if len(first) < 2:
        return []
    sizes = ", ".join(f"{name} on {len(images)}" for images, name in first.items())
    return [f"Runs were validated on different images ({sizes}), so that their metrics do not compare."]


def _embed(
    records: Sequence[RunRecord],
    runs: Sequence[dict[str, Any]],
    configs: Sequence[Mapping[str, Any]],
    *,
    max_bytes: int,
) -> Embedded:
    """The crops of runs as the page has them; what is left out is appended to each run's problems."""
    problems = [run["problems"] for run in runs]
    images = pair([list(_crops(*one)) for one in zip(records, configs, problems, strict=True)], problems)
    notes = _lacking_crops(images, records, runs)
    best = [{best["step"] for best in run["best"].values() if best} for run in runs]
    embedded = embed(images, best=best, problems=problems, max_bytes=max_bytes)
    return embedded._replace(notes=[*notes, *embedded.notes])


def _lacking_crops(
    images: Sequence[PairedImage], records: Sequence[RunRecord], runs: Sequence[dict[str, Any]]
) -> list[str]:
    """Name which run lacks which image, in its problems; where few runs have an image, in the note that is returned."""
    notes = []
    with_crops = {run for image in images for run in image.runs}
    lacks: dict[int, list[str]] = {}
    for image in images:
        # What a run has and was left out is named already.
        lacking = [run for run in with_crops - image.runs.keys() if image.name not in records[run].images]
        if len(lacking) > len(image.runs):
            notes.append(f"Crops of {image.name} are only in {', '.join(runs[run]['name'] for run in image.runs)}.")
        else:
            for run in lacking:
                lacks.setdefault(run, []).append(image.name)
    for at, (record, row) in enumerate(zip(records, runs, strict=True)):
        if at in lacks:
            row["problems"].append(f"no crops of {', '.join(lacks[at])}")
        elif with_crops and at not in with_crops and record.state is not State.BROKEN:
            row["problems"].append("no crops")
    return notes


def _crops(record: RunRecord, config: Mapping[str, Any], problems: list[str]) -> Iterator[Crops]:
    """A run's crops: files of their own, or of an earlier version those of its contact sheets."""
    for name, image in record.images.items():
        lr, bicubic, hr = (Crop(path) if path else None for path in (image.lr, image.bicubic, image.hr))
        yield Crops(name, lr, bicubic, hr, {step: Crop(path) for step, path in image.steps.items()})
    if not record.images:
        scale = config.get("data.scale")
        last = record.result and record.result.get("steps")
        yield from crops_of_sheets(
            record.folder / "samples",
            scale=scale if isinstance(scale, int) else 1,
            last_step=last if isinstance(last, int) else None,
            problems=problems,
        )
