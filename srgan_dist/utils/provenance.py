"""Which code runs, on what."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

_GIT_SECONDS = 20.0  # a large repository on a network disk


class CodeState(NamedTuple):
    """Where the running code is in its history.

    Attributes:
        commit: The commit that is checked out, or None where the code is in no repository, or git is not there.
        dirty: Whether the package's files differ from that commit; None as above.
    """

    commit: str | None
    dirty: bool | None


def code_state() -> CodeState:
    """The commit of the package's own repository, where it is run from a checkout."""
    package = Path(__file__).resolve().parent.parent
    root = next((folder for folder in package.parents if (folder / ".git").exists()), None)
    # Installed into an environment that lies in somebody's repository, the package is none of its files.
    if not root or _git(root, "ls-files", "--error-unmatch", "--", str(package / "__init__.py")) is None:
        return CodeState(None, None)
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--", str(package))
    return CodeState(commit or None, None if commit is None or changes is None else bool(changes))


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints about a repository; None where it fails."""
    where = (f"--git-dir={root / '.git'}", f"--work-tree={root}")  # whatever the environment says, as that of a hook
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *where, *arguments],
            cwd=root,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def cpu_name() -> str:
    """The processor's name, or its kind where the system does not tell the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str | None]:
    """Versions of packages, None for those that are not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
