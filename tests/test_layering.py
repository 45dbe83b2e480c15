"""The architecture, read off the syntax trees: imports go down a floor, packages have no circles, libraries owners."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "srgan_dist"

# Packages, and modules at the top, from the ground up. A file imports from floors below its own, and from its package.
FLOORS: list[set[str]] = [
    {"errors"},
    {"utils", "losses"},
    {"imaging", "config", "distributed", "tracking"},
    {"models", "degradations", "checkpointing", "records"},
    {"inference", "data"},
    {"evaluation"},
    {"training"},
    {"planning", "bench", "reports", "sweeps"},
    {"cli"},
    {"demo", "default_model", "__main__"},
]
OWNERS = {
    "wandb": {"tracking"},
    "rich": {"tracking", "cli", "evaluation", "planning", "bench", "reports", "sweeps"},
    "optuna": {"sweeps"},
    "webdataset": {"data", "bench"},
    "fsspec": {"data"},
    "braceexpand": {"data"},
    "pydantic": {"config", "inference", "training", "data"},
    "yaml": {"config", "sweeps"},
    "accelerate": {"distributed", "tracking"},
    "timm": {"models"},
    "spandrel": {"models"},
    "torchmetrics": {"evaluation"},
    "h5py": {"models"},
    "safetensors": {"checkpointing", "models"},
}
# Below `training`, only what turns the configuration into objects reads it.
CONFIG_READERS = {"build", "generator"}
TRAINER_READS = {"TrainConfig"}
# People's pictures are read in one place, where what is wrong with them is said; the others read what we have written.
PICTURE_READERS = {"imaging.read", "tracking.sample_files", "bench.loader.peers"}


def module_name(path: Path) -> str:
    """Dotted name below srgan_dist; of a package, its own name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"}
each_file = pytest.mark.parametrize("module", FILES)


def package(module: str) -> str:
    """The room on a floor to which a module belongs."""
    return module.split(".")[0]


def floor(module: str) -> int:
    """The number of a module's floor."""
    return next(number for number, rooms in enumerate(FLOORS) if package(module) in rooms)


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


def imported_modules(module: str) -> set[str]:
    """The modules of this package that a file imports, `from package import module` included."""
    found: set[str] = set()
    for name, names in imports(FILES[module]):
        if name.split(".")[0] == "srgan_dist":
            below = name.partition(".")[2]
            inner = {f"{below}.{part}" for part in names if f"{below}.{part}" in FILES}
            found |= inner or ({below} if below else names)
    return found - {module}


def test_every_package_has_a_floor() -> None:
    assert {package(module) for module in FILES} == set().union(*FLOORS)


@each_file
def test_imports_go_down_a_floor(module: str) -> None:
    for there in imported_modules(module):
        assert package(there) == package(module) or floor(there) < floor(module), f"{module} imports {there}"


@pytest.mark.parametrize("name", sorted({package(module) for module in FILES}))
def test_no_package_has_a_circle(name: str) -> None:
    """Neither its files, nor its subpackages."""
    files = {module: imported_modules(module) for module in FILES if package(module) == name}
    files = {module: {there for there in found if there in files} for module, found in files.items()}

    def subpackage(module: str) -> str:
        parts = module.split(".")
        return parts[1] if len(parts) > 2 else module

    rooms: dict[str, set[str]] = {}
    for module, found in files.items():
        here = subpackage(module)
        rooms.setdefault(here, set()).update({subpackage(there) for there in found} - {here})
    for graph in (files, rooms):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(f"{name}: {' -> '.join(error.args[1])}")


def test_a_circle_would_be_found() -> None:
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


@each_file
def test_libraries_have_owners(module: str) -> None:
    for name, _ in imports(FILES[module]):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or package(module) in owners, f"{module} imports {name}"


@each_file
def test_only_builders_read_the_configuration(module: str) -> None:
    """Models know tensors, the trainer knows time; neither knows the fields."""
    if floor(module) >= floor("training") or package(module) == "config":
        return
    # To read YAML is not to know the fields.
    if any(package(there) == "config" and there != "config.yaml_file" for there in imported_modules(module)):
        assert module.split(".")[-1] in CONFIG_READERS, f"{module} reads the configuration"


def test_the_trainer_reads_its_own_section_alone() -> None:
    names = [names for name, names in imports(FILES["training.trainer"]) if name.startswith("srgan_dist.config")]
    assert names == [TRAINER_READS]


@each_file
def test_the_environment_and_the_arguments_have_owners(module: str) -> None:
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            assert name != "os.environ" or package(module) == "distributed" or module == "imaging.read", module
            assert name != "Image.open" or module in PICTURE_READERS, f"{module}: Image.open"
            assert name != "sys.argv" or package(module) == "cli", f"{module} reads sys.argv"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "eval", "exec"}, f"{module} calls {node.func.id}"


@each_file
def test_files_and_functions_stay_small(module: str) -> None:
    text = FILES[module].read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno:
            assert node.end_lineno - node.lineno < 70, f"{module}: {node.name}"
