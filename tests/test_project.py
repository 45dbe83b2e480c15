"""The lowest versions that pyproject.toml allows are those that `make test-lowest` installs."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

tomllib = pytest.importorskip("tomllib")  # Python 3.11

TESTED_AT_ONE_VERSION = {"torch", "torchvision"}  # gigabytes each
NOT_INSTALLED = {"gcs", "docs"}  # extras that no test needs


def bounds() -> dict[str, str]:
    """The lower bound of every direct dependency of the package and of its extras, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(one for name in extras.keys() - NOT_INSTALLED for one in extras[name])]
    found = {}
    for requirement in requirements:
        name, bound = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?(?:>=([\d.]+)(?:,<\d+)?)?", requirement).groups()  # type: ignore[union-attr]
        if bound:
            found[name] = bound
        else:
            assert name == "srgan-dist" or name.startswith("types-"), f"{name} has no lower bound"
    return found


def test_the_constraints_are_the_lower_bounds() -> None:
    lines = (ROOT / ".ci/lowest.txt").read_text().splitlines()
    constraints = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert constraints.keys() >= TESTED_AT_ONE_VERSION
    allowed = {name: bound for name, bound in bounds().items() if name not in TESTED_AT_ONE_VERSION}
    assert {name: bound for name, bound in constraints.items() if name not in TESTED_AT_ONE_VERSION} == allowed
