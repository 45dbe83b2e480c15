"""Imports go strictly down a floor, and each library has one owner: read off the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "srgan_dist"

FLOORS: dict[int, set[str]] = {
    0: {
        "errors",
        "config_base",
        "config_degradation",
        "config_optimizer",
        "config_stability",
        "config",
        "config_fields",
        "config_help",
        "configfile",
        "changes",
        "losses",
        "metrics",
        "schedule",
        "launched",
        "ram",
        "collectives",
        "compiler",
        "clock",
        "tiling",
        "sheet",
        "models",
    },
    1: {
        "data",
        "runtime",
        "signals",
        "lead",
        "weights",
        "tracking",
        "background",
        "snapshot",
        "checkpoint",
        "objective",
        "learner",
        "average",
        "memory",
        "watchdog",
        "pace",
        "stability",
    },
    2: {"validate", "game", "trainer"},
    3: {"build", "build_data", "build_losses", "build_networks", "footprint"},
    4: {"inference", "evaluate", "run", "doctor", "plan"},
    5: {"bench"},
    6: {"cli", "cli_bench", "cli_data"},
    7: {"demo", "__main__"},
}
# Within a floor only what is listed here.
SIDEWAYS = {
    ("config_degradation", "config_base"),
    ("config_optimizer", "config_base"),
    ("config_stability", "config_base"),
    ("config_stability", "config_degradation"),
    ("config", "config_base"),
    ("config", "config_optimizer"),
    ("config", "config_stability"),
    ("config", "config_degradation"),
    ("config_fields", "config"),
    ("config_fields", "config_base"),
    ("config_help", "config_fields"),
    ("configfile", "config_fields"),
    ("configfile", "config_help"),
    ("changes", "config_fields"),
    ("configfile", "errors"),
    ("configfile", "config"),
    ("changes", "config"),
    ("changes", "errors"),
    ("models", "errors"),
    ("compiler", "errors"),
    ("background", "runtime"),
    ("snapshot", "weights"),
    ("checkpoint", "background"),
    ("checkpoint", "snapshot"),
    ("checkpoint", "runtime"),
    ("checkpoint", "weights"),
    ("learner", "runtime"),
    ("stability", "data"),
    ("stability", "pace"),
    ("pace", "runtime"),
    ("average", "runtime"),
    ("memory", "runtime"),
    ("watchdog", "runtime"),
    ("checkpoint", "lead"),
    ("average", "weights"),
    ("trainer", "validate"),
    ("trainer", "game"),
    ("build", "build_data"),
    ("build", "build_losses"),
    ("build", "build_networks"),
    ("build", "footprint"),
    ("footprint", "build_losses"),
    ("footprint", "build_networks"),
    ("evaluate", "inference"),
    ("run", "inference"),
    ("plan", "run"),
    ("cli", "cli_bench"),
    ("cli", "cli_data"),
}
CONFIGS = {"config", "config_fields", "config_help", "config_degradation", "config_optimizer", "config_stability"}
OWNERS = {
    "wandb": {"tracking"},
    "rich": {"tracking", "cli", "cli_bench", "cli_data", "evaluate", "plan", "bench", "doctor"},
    "webdataset": {"data", "bench"},
    "fsspec": {"data"},
    "braceexpand": {"data"},
    "pydantic": {"config_base", *CONFIGS, "configfile", "inference"},
    "yaml": {"config", "configfile"},
    "accelerate": {"runtime", "tracking"},
    "timm": {"models"},
    "torchmetrics": {"metrics"},
    "safetensors": {"background", "snapshot", "weights", "models"},
}
CONFIG_READERS = {"trainer": {"TrainConfig"}}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def floor(name: str) -> int:
    return next(number for number, rooms in FLOORS.items() if name in rooms)


def imports(path: Path) -> list[tuple[str, set[str]]]:
    """(module, names) of every import in a file, wherever it stands."""
    found: list[tuple[str, set[str]]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, set()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module or "", {alias.name for alias in node.names}))
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def test_every_file_has_a_floor() -> None:
    assert {room(path) for path in FILES} == set().union(*FLOORS.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    here = room(path)
    for module, names in imports(path):
        if not module.startswith("srgan_dist"):
            continue
        targets = [module.split(".")[1]] if "." in module else sorted(names)
        for there in targets:
            if there == here or (here, there) in SIDEWAYS:
                continue
            assert floor(there) < floor(here), f"{path.name} imports {there}"
            if there == "config" and floor(here) < 3:
                assert names <= CONFIG_READERS.get(here, set()), f"{path.name} imports {names} of config"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_have_owners(path: Path) -> None:
    here = room(path)
    for module, _ in imports(path):
        owners = OWNERS.get(module.split(".")[0])
        assert owners is None or here in owners, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_environment_and_the_arguments_have_owners(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            assert name != "os.environ" or room(path) == "runtime", f"{path.name} reads os.environ"
            assert name != "sys.argv" or room(path) in ("cli", "cli_data"), f"{path.name} reads sys.argv"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "eval", "exec"}, f"{path.name} calls {node.func.id}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    tree = ast.parse(path.read_text())
    limit = 400 if path.name == "config.py" else 340  # config.py is a list of fields
    assert len(path.read_text().splitlines()) <= limit
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno:
            assert node.end_lineno - node.lineno < 70, f"{path.name}: {node.name}"
