"""Type checkers see the installed package's types: they read py.typed, and no name is ``Any``."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT, Finished, run

CLIENT = ROOT / "tests/typed_client.py"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment into which the package is installed as from a wheel, and not from here."""
    source, environment = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("environment")
    for name in ("pyproject.toml", "README.md", "LICENSE", "srgan_dist"):
        (source / name).symlink_to(ROOT / name)
    venv.create(environment)
    python = environment / "bin/python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").out.strip())
    install: list[str | Path] = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", site]
    done = run(sys.executable, "-m", "pip", "install", "--quiet", *install, source)
    assert done.code == 0, done.err
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def mypy(python: Path, file: Path) -> Finished:
    """Check a file outside of the project's folder, where no configuration of ours is read."""
    # Reading torch takes a quarter of a minute, once.
    cache = ROOT / ".mypy_cache/client"
    options: list[str | Path] = ["--strict", "--config-file=", "--python-executable", python, "--cache-dir", cache]
    return run(sys.executable, "-m", "mypy", *options, file, cwd=file.parent, PYTHONPATH="")


def test_a_strict_program_finds_types(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(CLIENT.read_text())
    done = mypy(installed, tmp_path / "client.py")
    assert done.code == 0, done.out + done.err


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("from srgan_dist import Trainer", "has no attribute"),
        ("from srgan_dist import train; train(3)", "incompatible type"),
        ("from srgan_dist import Config; Config(train=3)", "incompatible type"),
        ("from srgan_dist import SRGenerator; SRGenerator.from_pretrained('a').upscale(3)", "incompatible type"),
        ("from srgan_dist import evaluate; evaluate('a', 3)", "incompatible type"),
    ],
)
def test_a_program_with_a_mistake_is_refused(installed: Path, tmp_path: Path, line: str, error: str) -> None:
    (tmp_path / "client.py").write_text(f"{line}\n")
    done = mypy(installed, tmp_path / "client.py")
    assert done.code == 1, done.out + done.err
    assert error in done.out


def test_what_the_page_is_made_of_is_installed(installed: Path, tmp_path: Path) -> None:
    program = (
        "from srgan_dist.reports import page;"
        "lists = dict.fromkeys(('metrics', 'runs', 'groups', 'differing', 'curves', 'images', 'assets', 'notes'), []);"
        "made = page.render({'title': 'runs', 'made': '', 'version': '', 'baseline': None} | lists);"
        "print(page.__file__, 'uPlot' in made)"
    )
    done = run(installed, "-c", program, cwd=tmp_path, PYTHONPATH="")
    assert done.code == 0, done.err
    file, is_whole = done.out.split()
    assert Path(file).is_relative_to(installed.parent.parent)
    assert is_whole == "True"


def test_the_default_model_is_installed_with_its_list_and_card(installed: Path) -> None:
    """With everything of its folder that is no code."""
    code = "import srgan_dist.default_model as m, os; print(*sorted(os.listdir(os.path.dirname(m.__file__))))"
    done = run(installed, "-c", code, cwd=installed.parent, PYTHONPATH="")
    assert done.code == 0, done.err
    here = {path.name for path in (ROOT / "srgan_dist/default_model").iterdir() if path.is_file()}
    assert {"photographs.csv", "psnr.yaml", "gan.yaml"} <= here <= set(done.out.split())
