"""What stands in several of the project's own files is the same: versions, bounds, the parts of CI."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, run

tomllib = pytest.importorskip("tomllib")  # Python 3.11

TESTED_AT_ONE_VERSION = {"torch", "torchvision"}  # gigabytes each
NOT_INSTALLED = {"gcs", "docs"}  # extras that no test needs


def pyproject() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def bounds() -> dict[str, str]:
    """The lower bound of every direct dependency of the package and of its extras, by name."""
    project = pyproject()
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


def test_the_lowest_versions_tested_are_the_lowest_allowed() -> None:
    lines = (ROOT / ".ci/lowest.txt").read_text().splitlines()
    constraints = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert constraints.keys() >= TESTED_AT_ONE_VERSION
    allowed = {name: bound for name, bound in bounds().items() if name not in TESTED_AT_ONE_VERSION}
    assert {name: bound for name, bound in constraints.items() if name not in TESTED_AT_ONE_VERSION} == allowed


def test_the_version_stands_in_the_citation_and_in_the_changelog() -> None:
    version = pyproject()["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert f"\n## {version} - {citation['date-released']}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_hosted_ci_runs_the_parts_of_the_script() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    hosted = [re.findall(r"\.ci/run (\w+)", step.get("run", "")) for job in jobs.values() for step in job["steps"]]
    done = run(ROOT / ".ci/run", "nothing")
    assert done.code == 2
    assert {part for parts in hosted for part in parts} == set(done.err.split("the parts are ")[1].split())


def test_every_python_that_is_declared_is_tested() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    tested = jobs["test"]["strategy"]["matrix"]["python-version"]
    project = pyproject()
    assert project["requires-python"] == f">={tested[0]}"
    assert [one for one in project["classifiers"] if "Python :: 3." in one] == [
        f"Programming Language :: Python :: {version}" for version in tested
    ]
