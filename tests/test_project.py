"""What stands in several of the project's own files is the same: versions, bounds, the parts of CI."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT, run

tomllib = pytest.importorskip("tomllib")  # Python 3.11

TESTED_AT_ONE_VERSION = {"torch", "torchvision"}  # gigabytes each
NOT_INSTALLED = frozenset({"gcs", "docs"})  # extras that no test needs


def pyproject() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def requirements(*, without: frozenset[str] = frozenset()) -> list[str]:
    """The direct dependencies of the package and of its extras."""
    project = pyproject()
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(one for name in extras.keys() - without for one in extras[name])]


def bounds() -> dict[str, str]:
    """The lower bound of every direct dependency, by name."""
    found = {}
    for requirement in requirements(without=NOT_INSTALLED):
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


def test_the_tested_versions_are_allowed_and_none_is_missing() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = {canonicalize_name(name): version for name, version in (x.split("==") for x in lines if x[0] != "#")}
    for text in requirements():
        requirement = Requirement(text)
        if requirement.name != "srgan-dist" and "gcs" not in requirement.name:
            assert tested[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_both_ends_of_the_versions_are_audited() -> None:
    audit = yaml.safe_load((ROOT / ".github/workflows/audit.yml").read_text())["jobs"]["audit"]
    files = audit["strategy"]["matrix"]["versions"]
    assert files == ["constraints.txt", ".ci/lowest.txt"]
    assert all((ROOT / file).is_file() for file in files)


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
