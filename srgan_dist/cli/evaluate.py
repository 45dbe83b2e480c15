"""The command ``evaluate``: options, which arguments are models and which test sets, and the call of what measures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from srgan_dist.cli.images import add_allow_class
from srgan_dist.config.lists import split_list
from srgan_dist.distributed.launch import num_processes, process_rank
from srgan_dist.errors import UserError
from srgan_dist.utils import strict_json
from srgan_dist.utils.file_kind import NotWeights, weights_kind

if TYPE_CHECKING:
    from srgan_dist.distributed.runtime import Runtime
    from srgan_dist.inference.generator import SRGenerator

_PATIENCE = 7 * 24 * 3600.0  # seconds: ranks wait for the one with the largest images
_WEIGHTS = ("best.safetensors", "generator.safetensors")  # of a run, the first that is there


class Model(NamedTuple):
    """What is to be measured.

    Attributes:
        name: As it was given.
        weights: The file.
        is_run: Whether a run was given.
    """

    name: str
    weights: Path
    is_run: bool


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The options of ``evaluate``."""
    parser.epilog = "Several models are measured side by side: first the runs and weights files, then the test sets."
    parser.add_argument(
        "weights",
        type=Path,
        metavar="WEIGHTS",
        help="weights/generator.safetensors of a run, or another trainer's; or the folder of a run, for its best "
        "weights, else its last; or gan or psnr, the default model's; or several of them",
    )
    parser.add_argument(
        "folders",
        type=Path,
        metavar="DIR",
        nargs="+",
        help="test set: HR images, or a layout such as HR/ beside LRx<scale>/",
    )
    parser.add_argument(
        "--measures",
        default="auto",
        metavar="LIST",
        help="besides PSNR and SSIM: some of grid,lpips,dists,lpips_hed,dists_hed, or auto (default), those whose "
        "weights are on this machine",
    )
    add_allow_class(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to a file")


def evaluate(options: argparse.Namespace) -> None:
    """``srgan-dist evaluate``."""
    from srgan_dist.bench.common.measure import refuse_unwritable
    from srgan_dist.inference.generator import SRGenerator
    from srgan_dist.tracking.console import setup_logging

    setup_logging(is_main=process_rank() == 0)
    if options.json and process_rank() == 0:
        refuse_unwritable(options.json)
    models, folders = models_and_folders([options.weights, *options.folders])
    asked = split_list(options.measures)
    with _ranks() as ranks:
        device = ranks.device if ranks else None
        generators = {
            model: SRGenerator.from_pretrained(model.weights, device=device, allow_class=options.allow_class)
            for model in models
        }
        job = _Job(folders, "auto" if asked == ["auto"] else asked, ranks, options.json)
        if len(models) == 1:
            _alone(models[0], generators[models[0]], job)
        else:
            _side_by_side(generators, job)


class _Job(NamedTuple):
    """What each model is measured on, by what, with whom, and where the numbers go."""

    folders: Sequence[Path]
    measures: Literal["auto"] | Sequence[str]
    ranks: Runtime | None
    json: Path | None

    @property
    def is_main(self) -> bool:
        return self.ranks is None or self.ranks.is_main


@contextmanager
def _ranks() -> Iterator[Runtime | None]:
    """The ranks that a launcher started, which share the images; None for a process alone."""
    if num_processes() == 1:
        yield None
        return
    from srgan_dist.distributed.runtime import Runtime

    ranks = Runtime(timeout=_PATIENCE)
    try:
        with ranks.images_of_any_size():
            yield ranks
    finally:
        ranks.close()


def _alone(model: Model, generator: SRGenerator, job: _Job) -> None:
    from srgan_dist.evaluation.evaluate import to_table, write_json
    from srgan_dist.tracking.console import output, output_for_tables

    results = _measure(generator, job, label="evaluate")
    if not job.is_main:
        return
    if model.is_run:
        output.print(f"{model.weights}:", soft_wrap=True, highlight=False)
    for result in results:
        output_for_tables().print(to_table(result))
    if job.json:
        write_json(job.json, model.weights, results)


def models_and_folders(paths: Sequence[Path]) -> tuple[list[Model], list[Path]]:
    """Tell models from test sets, by what they are: of the first it is known that it is a model.

    Raises:
        UserError: A run has no weights, or is a folder of images as well; a model stands behind a test set, or twice.
    """
    known = [_model(path) for path in paths]
    known[0] = known[0] or Model(str(paths[0]), paths[0], is_run=False)
    count = next((at for at, model in enumerate(known) if model is None), len(known))
    models = [model for model in known[:count] if model]
    if late := next((model for model in known[count:] if model), None):
        set_ = paths[count]
        what = "is a folder of images" if set_.is_dir() else "is neither weights nor a run" if set_.exists() else ""
        between = f"{set_} before it {what}" if what else f"there is no {set_}"
        raise UserError(f"{late.name} is a model, but {between}: give runs and weights first, then folders of images")
    if count == len(paths):
        raise UserError(f"all of {', '.join(map(str, paths))} are models: name a folder of images to measure on")
    if twice := next((model.name for at, model in enumerate(models) if model in models[:at]), None):
        raise UserError(f"{twice} stands there twice: leave one of them out")
    return models, list(paths[count:])


def _model(path: Path) -> Model | None:
    """The model that a path names; None where it is something else, a folder of images maybe."""
    from srgan_dist.imaging.listing import SUFFIXES
    from srgan_dist.inference.default import named_weights
    from srgan_dist.records.run import is_run

    if (ours := named_weights(path)) != path:
        return Model(str(path), ours, is_run=False)
    if path.is_file():
        try:
            weights_kind(path)
        except NotWeights:
            return None
        return Model(str(path), path, is_run=False)
    weights = [path / "weights" / name for name in _WEIGHTS if (path / "weights" / name).is_file()]
    if not path.is_dir() or not (weights or is_run(path)):
        return None
    suffixes = {suffix for of_format in SUFFIXES.values() for suffix in of_format}
    if any(entry.suffix.lower() in suffixes and not entry.name.startswith(".") for entry in path.iterdir()):
        what = "is the folder of a run, and holds images as well"
        raise UserError(f"{path} {what}: name the file of weights in it, or move the images elsewhere")
    if not weights:
        raise UserError(f"{path}: this run has no weights yet (weights/{', weights/'.join(_WEIGHTS)})")
    return Model(str(path), weights[0], is_run=True)


def _measure(generator: SRGenerator, job: _Job, *, label: str) -> list[dict[str, Any]]:
    from srgan_dist.evaluation.evaluate import evaluate as measure
    from srgan_dist.tracking.console import progress_report

    with progress_report(label, "images", visible=job.is_main) as report:
        done = 0

        def on_image(_: str) -> None:
            nonlocal done
            done += 1
            report(done, None)

        return measure(generator, job.folders, measures=job.measures, on_image=on_image, ranks=job.ranks)


def _side_by_side(generators: dict[Model, SRGenerator], job: _Job) -> None:
    from srgan_dist.evaluation.side_by_side import to_tables
    from srgan_dist.inference.generator import NotFinite
    from srgan_dist.tracking.console import output_for_tables

    scales = {generator.scale: model for model, generator in generators.items()}
    if len(scales) > 1:
        listed = ", ".join(f"{model.name} {scale}" for scale, model in scales.items())
        raise UserError(f"these models enlarge differently ({listed} times) and do not compare: measure them apart")
    results = {}
    for model, generator in generators.items():
        try:
            results[model] = _measure(generator, job, label=model.name)
        except NotFinite as error:
            raise NotFinite(f"{model.name}: {error}") from None
    details = {
        model.name: ", ".join(
            [model.weights.name] * model.is_run + [f"step {step}" for step in [generator.metadata.get("step")] if step]
        )
        for model, generator in generators.items()
    }
    if not job.is_main:
        return
    for table in to_tables({model.name: result for model, result in results.items()}, details):
        output_for_tables().print(table)
    if job.json:
        content = [
            {"name": model.name, "weights": str(model.weights), "sets": result} for model, result in results.items()
        ]
        job.json.write_text(strict_json.dumps({"models": content}, indent=2) + "\n", encoding="utf-8")
