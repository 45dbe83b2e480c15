"""What the README and the pages say is so: commands, options, keys, files, links, messages, the generated reference."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml

from srgan_dist.cli.commands import _parser
from srgan_dist.config.fields import known_keys
from srgan_dist.config.root import Config

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("docs/*.md")), ROOT / "launch" / "README.md", ROOT / "shards" / "README.md"]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))

SECTIONS = sorted({key.split(".")[0] for key in known_keys()})
_FENCE = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_STARTERS = ("accelerate", "torchrun", "sbatch")  # their own options are theirs to know
_TAKE_KEYS = ("train", "plan", "doctor", "bench step", "bench scaling")
_TOP_OPTIONS = {"--help", "--version"}


class Fence(NamedTuple):
    """A block of code in a page."""

    language: str
    text: str


def fences(page: Path) -> list[Fence]:
    """Its blocks of code."""
    return [Fence(language.strip(), text) for _, language, text in _FENCE.findall(page.read_text(encoding="utf-8"))]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of every shell command, in blocks without a language and in code spans."""
    text = [line for fence in fences(page) if not fence.language for line in fence.text.splitlines()]
    for line in [*text, *_CODE.findall(prose(page))]:
        if re.match(
            r"\s*(srgan-dist|accelerate|torchrun|sbatch|make|for|python|pip|\.venv/bin/python)\b|\s+srgan-dist", line
        ):
            yield shlex.split(line.split(" # ")[0].rstrip("; "), comments=False)


def arguments_of_train(words: list[str]) -> list[str] | None:
    """What follows the script that trains, where another program starts it; None where it starts something else."""
    scripts = [index for index, word in enumerate(words) if word == "train.py" or word.endswith(".sbatch")]
    return [word for word in words[scripts[0] + 1 :] if not word.endswith(".txt")] if scripts else None


def subparsers(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    """A parser's commands by name."""
    found = [action for action in parser._actions if isinstance(action, _SubParsersAction)]
    return dict(found[0].choices) if found else {}


@cache
def commands() -> dict[str, set[str]]:
    """Every command, such as ``bench step``, with the options that it has of its own."""
    found: dict[str, set[str]] = {}
    for name, parser in subparsers(_parser()).items():
        for inner, command in subparsers(parser).items() or [("", parser)]:
            found[f"{name} {inner}".strip()] = set(command._option_string_actions)
    return found


def refuse_unknown_options(command: str, words: list[str]) -> None:
    """Fail where a command line has an option that the command has not."""
    assert command in commands(), f"there is no command {command!r}"
    known = commands()[command] | {"--config", "--from-run", "--help"}
    for word in words:
        option = word.split("=")[0]
        if option.startswith("--") and option not in known:
            assert command in _TAKE_KEYS, f"{command} has no option {option}"
            assert option.removeprefix("--") in known_keys(), f"{command} has no option {option}"


def anchors(page: Path) -> set[str]:
    """The names of a page's headings in links, as GitHub and MyST make them."""
    text = page.read_text(encoding="utf-8")
    if included := re.search(r"^```\{include\} (\S+)", text, re.MULTILINE):
        return anchors(page.parent / included[1])
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_names_the_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    assert "make demo" in text
    assert "make test" in text


def test_the_configuration_reference_is_what_the_classes_say() -> None:
    """`python docs/configuration_reference.py` writes it again."""
    path = ROOT / "docs" / "configuration_reference.py"
    spec = importlib.util.spec_from_file_location("configuration_reference", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.reference()


def test_the_configuration_reference_has_every_key() -> None:
    text = (ROOT / "docs" / "configuration-reference.md").read_text(encoding="utf-8")
    missing = [key for key in known_keys() if f"`{key}`" not in text and f"{key}=" not in text]
    assert not missing


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Relative ones to a file and, with a fragment, to a heading; others are well-formed https addresses."""
    for link in _LINK.findall(prose(page)):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            assert parts.scheme == "https", link
            assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), link
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), link
        assert not parts.fragment or parts.fragment in anchors(target), link


@each_page
def test_files_of_this_repository_exist(page: Path) -> None:
    """Those that a page names as code, from the repository's folder or from srgan_dist/ on."""
    made = {"runs", "shards", "site", "build", "logs"}  # by the program
    roots = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - made
    packages = {path.parent.name for path in (ROOT / "srgan_dist").glob("*/__init__.py")}
    for word in " ".join(_CODE.findall(prose(page))).split():
        first, rest = word.rstrip(",;:").partition("/")[::2]
        if not rest or set(rest) & set("*{}<>$=") or "espcn" in rest:  # the example of extending.md
            continue
        if first in roots:
            assert (ROOT / first / rest).exists(), word
        elif first in packages and rest.endswith((".py", "/")):
            assert (ROOT / "srgan_dist" / first / rest).exists(), word


@pytest.mark.parametrize("diagram", sorted(ROOT.glob("docs/diagrams/*.dot")), ids=lambda path: path.stem)
def test_files_in_diagrams_exist(diagram: Path) -> None:
    for name in re.findall(r"[\w/]+/\w+\.py", diagram.read_text(encoding="utf-8").replace("\\n", " ")):
        assert (ROOT / name).exists() or (ROOT / "srgan_dist" / name).exists(), name


@each_page
def test_commands_and_options_exist(page: Path) -> None:
    for words in command_lines(page):
        where = next((index for index, word in enumerate(words) if word == "srgan-dist"), None)
        if where is not None and words[where + 1 :]:
            first, *rest = words[where + 1 :]
            if first.startswith("--"):
                assert first in _TOP_OPTIONS, words
                continue
            if subparsers(subparsers(_parser())[first]) and rest:
                first, *rest = f"{first} {rest[0]}", *rest[1:]
            if rest:
                refuse_unknown_options(first, rest)
            else:
                assert any(command.split()[0] == first.split()[0] for command in commands()), first
        elif words[0] in _STARTERS and (rest := arguments_of_train(words) or []):
            refuse_unknown_options("train", rest)


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in command_lines(page):
        if words[0] == "make":
            assert set(words[1:2]) <= targets, words


@each_page
def test_keys_exist(page: Path) -> None:
    """Those in code spans, such as `data.batch_size` or `--run.ranks=2`; sections of keys count."""
    known = set(known_keys())
    known |= {key.rsplit(".", depth)[0] for key in known for depth in (1, 2, 3)} | {"data.digest"}
    for word in " ".join(_CODE.findall(prose(page))).split():
        if found := re.fullmatch(rf"(?:--)?((?:{'|'.join(SECTIONS)})(?:\.\w+)+)(?:[=,.].*)?", word):
            files = (".py", ".yaml", ".json", ".jsonl", ".png", ".log")
            assert found[1] in known or word.endswith(files), word


@pytest.mark.parametrize("page", [page for page in PAGES if any(fence.language == "yaml" for fence in fences(page))])
def test_yaml_is_a_configuration(page: Path) -> None:
    for fence in fences(page):
        if fence.language == "yaml":
            Config(**yaml.safe_load(fence.text))


@pytest.mark.parametrize("page", [page for page in PAGES if any(fence.language == "python" for fence in fences(page))])
def test_python_compiles_and_imports_what_there_is(page: Path) -> None:
    for fence in fences(page):
        text = "\n".join(fence.text.splitlines())
        # A branch is part of a file; what extending.md adds is not there, and tests/test_extending.py adds it.
        if fence.language != "python" or text.lstrip().startswith(("case ", "if ")) or "espcn" in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "srgan_dist":
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_the_architecture_names_every_package() -> None:
    packages = [path.parent.name for path in sorted((ROOT / "srgan_dist").glob("*/__init__.py"))]
    for page in (README, ROOT / "docs" / "architecture.md"):
        text = page.read_text(encoding="utf-8")
        assert not [name for name in packages if f"{name}/" not in text], page


def _pattern(node: ast.expr) -> str | None:
    """A regular expression for what a string in the source can come to."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        parts = re.split(r"%(?:\.\d+)?[sdgf]", node.value)
        return ".+?".join(re.escape(part) for part in parts)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            re.escape(part.value) if isinstance(part, ast.Constant) and isinstance(part.value, str) else ".*?"
            for part in node.values
        )
    return None


@cache
def messages() -> list[re.Pattern[str]]:
    """What the program may say: every longer string in it."""
    found = []
    for path in sorted((ROOT / "srgan_dist").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            pattern = _pattern(node) if isinstance(node, ast.expr) else None
            if pattern and len(pattern.replace(".*?", "").replace(".+?", "")) >= 12:
                found.append(re.compile(pattern))
    return found


MESSAGES = [fence.text.strip() for fence in fences(ROOT / "docs" / "troubleshooting.md") if fence.language == "text"]


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_the_program_says_what_troubleshooting_quotes(message: str) -> None:
    """Much of a message is text of the program, the rest names and numbers of the example."""
    said = [match for pattern in messages() for match in pattern.finditer(message)]
    covered = set().union(*(range(*match.span()) for match in said))
    assert len(covered) >= 0.4 * len(message), f"{message}: only {len(covered)} characters are the program's"


def test_troubleshooting_has_symptoms_enough() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(entries) >= 15
    assert not [entry.splitlines()[0] for entry in entries if "**Cure.**" not in entry and "pip install" not in entry]
