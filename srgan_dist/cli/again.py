"""``--from-run RUN``: the configuration of a run that repeats another one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from srgan_dist.config.compatibility import former_generator
from srgan_dist.config.load import config_from, load_config
from srgan_dist.config.root import Config
from srgan_dist.config.yaml_file import read_yaml
from srgan_dist.errors import UserError
from srgan_dist.utils.names import expand_home
from srgan_dist.utils.secrets import shown_in


def configuration(arguments: Sequence[str], *, prog: str) -> tuple[Config, Path | None]:
    """Read the arguments of a training.

    Args:
        arguments: ``--config FILE`` or ``--from-run RUN``, and overrides.
        prog: Name of the program in the help.

    Returns:
        The configuration, and the folder of the run that it repeats, or None. Its ``run.dir`` is that folder where the
        arguments name none: see `srgan_dist.training.repeat.beside_parent`.

    Raises:
        UserError: As `config_from`; or there is no such run, or both are given.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--from-run", action="append", default=[])
    try:
        known, rest = finder.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(f"{shown_in(str(error))}; --help-all lists every option") from None
    if not known.from_run:
        return config_from(arguments, prog=prog), None
    if len(known.from_run) > 1:
        raise UserError("--from-run stands there twice: a run repeats one other")
    if not known.from_run[0]:  # of a script's variable that is not set
        raise UserError("--from-run is empty: give the folder of a run, or leave it out")
    if any(argument == "--config" or argument.startswith("--config=") for argument in rest):
        raise UserError(
            "--from-run and --config: a run is repeated with its own configuration; leave one of them out, and change "
            "keys by --section.key=value"
        )
    run = expand_home(known.from_run[0])
    file = run / "config.yaml"
    if not file.is_file():
        raise UserError(f"--from-run is {run}, which is no folder of a run: there is no {file}")
    # What that run was allowed to change when it resumed is not allowed here.
    config = load_config(file, [f"--run.dir={run}", "--run.allow_changes=[]", *_former(file, rest), *rest], prog=prog)
    asked = any(argument.partition("=")[0] == "--run.dir" for argument in rest)
    if asked and config.run.dir.resolve() == run.resolve():
        raise UserError(f"--run.dir is {config.run.dir}, where the run that is to be repeated lies: choose another")
    return config, run


def _former(file: Path, rest: Sequence[str]) -> list[str]:
    """What the run's generator did by default in its version, unless another one is chosen."""
    generator = read_yaml(file)[0].get("generator")
    if not isinstance(generator, dict) or any(argument.partition("=")[0] == "--generator.name" for argument in rest):
        return []
    former = former_generator(generator)
    return [f"--generator.{key}={former[key]}" for key in former.keys() - generator.keys()]
