"""Reading a configuration file: YAML's names, texts, numbers, lists and mappings, and which line each key is on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from srgan_dist.errors import UserError
from srgan_dist.utils.files import read_file
from srgan_dist.utils.names import expand_home

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 20  # of lists and mappings in each other; a configuration needs 4
_MAX_VALUES = 10_000  # with those that an alias repeats
_LONGEST_NAME = 100
_OWN_PIPES = re.compile(r"/dev/(stdin|fd/\d+)|/proc/self/fd/\d+")  # what a shell's <(...) gives
_TAG = "tag:yaml.org,2002:"
_TYPES = {_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map")}


class _Unfit(ConstructorError):
    """YAML that no configuration is."""


class _Loader(yaml.SafeLoader):
    """Of YAML's types those that a configuration has: a date and ``=``, which are types as well, are texts here."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the class above has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _TYPES | {f"{_TAG}merge"}]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag in _TYPES
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int) and abs(value) >= 2**63:  # of base 60, too, Python would not even print it
                raise _fault(node, "what stands here is a number of more than 64 bits")
            return value
        except (ValueError, IndexError, KeyError, OverflowError):  # such as "!!int x", or more digits than Python reads
            raise _fault(node, f"what stands here cannot be read as {node.tag.removeprefix(_TAG)}") from None


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Read a configuration file.

    Args:
        path: The file; `~` is the home folder.

    Returns:
        Its content, unchecked, and the number of the line on which each key such as ``train.steps`` stands; keys that
        an alias or a merge brings have none.

    Raises:
        UserError: It is not a file, not UTF-8, not YAML, or nothing that a configuration can be; the line is named.
    """
    path = expand_home(path)
    try:
        data = read_file(path, max_bytes=_MAX_BYTES, may_be_pipe=bool(_OWN_PIPES.fullmatch(str(path))))
    except OSError as error:
        raise UserError(f"{path}: cannot read the configuration: {error.strerror}") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not YAML: the byte 0x{data[error.start]:02x} is not UTF-8") from None
    try:
        return _parse(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{path}:{line}: not YAML: holds the character U+{ord(text[error.position]):04X}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(": ".join(part for part in (error.context, error.problem) if part).split())
        what = problem if isinstance(error, _Unfit) else f"not YAML: {problem}"
        raise UserError(f"{path}:{mark.line + 1 if mark else 1}: {what}") from None


def read_list(text: str) -> list[Any]:
    """Read a list of mappings from one text, as a command line gives it.

    Args:
        text: Such as ``[{kind: ldl}]``; its brackets may be left out. JSON is read as well.

    Raises:
        ValueError: It is not YAML, or nothing that a configuration can have; says what.
    """
    text = text.strip()
    items = _parse_text(f"items: {text if text.startswith('[') else f'[{text}]'}", otherwise="no list")["items"]
    return items if isinstance(items, list) else [items]


def read_mapping(text: str) -> dict[str, Any]:
    """Read a mapping from one text, as a command line gives it.

    Args:
        text: Such as ``{dim: 64, depths: [6, 6]}``; its braces may be left out. JSON is read as well.

    Raises:
        ValueError: It is not YAML, or nothing that a configuration can have; says what.
    """
    text = text.strip()
    return _parse_text(text if text.startswith("{") else f"{{{text}}}", otherwise="no mapping")


def _parse_text(text: str, *, otherwise: str) -> dict[str, Any]:
    try:
        return _parse(text)[0]
    except yaml.MarkedYAMLError as error:
        raise ValueError(" ".join((error.problem or error.context or otherwise).split())) from None
    except ReaderError as error:
        raise ValueError(f"holds the character U+{ord(text[error.position]):04X}") from None


def _parse(text: str) -> tuple[dict[str, Any], dict[str, int]]:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):  # unlike what follows, not recursive
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _fault(event, f"lists and mappings are in each other more than {_MAX_DEPTH} deep")
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        return {}, {}
    walk = _Walk()
    walk.visit(node, key="", depth=1)
    if not isinstance(node, yaml.MappingNode):
        raise _fault(node, "expected sections such as 'train:' with keys")
    content: dict[str, Any] = loader.construct_document(node)
    return content, walk.lines


class _Walk:
    """Visits every value once, and refuses what would be too much when aliases are followed.

    Attributes:
        lines: By key, its line, from 1.
    """

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self._seen: dict[yaml.Node, tuple[int, int]] = {}

    def visit(self, node: yaml.Node, *, key: str, depth: int) -> tuple[int, int]:
        """Returns how many values a node has, itself included, and how deep they go."""
        if depth > _MAX_DEPTH:  # an alias within what it stands for has no end
            raise _fault(node, f"aliases lead more than {_MAX_DEPTH} deep")
        if node not in self._seen:
            inner = [self.visit(child, key=name, depth=depth + 1) for child, name in self._children(node, key)]
            self._seen[node] = 1 + sum(count for count, _ in inner), 1 + max((below for _, below in inner), default=0)
        count, below = self._seen[node]
        if count > _MAX_VALUES or depth + below - 1 > _MAX_DEPTH:
            most = f"more than {_MAX_VALUES} values, or more than {_MAX_DEPTH} deep"
            raise _fault(node, f"{most}, with those that aliases repeat")
        return count, below

    def _children(self, node: yaml.Node, key: str) -> list[tuple[yaml.Node, str]]:
        if isinstance(node, yaml.SequenceNode):
            return [(item, f"{key}.{number}") for number, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return []
        names: dict[str, int] = {}
        children = []
        for name, value in node.value:
            if name.tag not in (f"{_TAG}str", f"{_TAG}merge") or not _is_name(name.value):
                raise _fault(name, "what stands here as a key is no name")
            line = name.start_mark.line + 1
            if name.value in names:
                raise _fault(
                    name, f"the key {name.value} stands here and on line {names[name.value]}: keep one of them"
                )
            names[name.value] = line
            full = f"{key}.{name.value}" if key else name.value
            self.lines.setdefault(full, line)
            children.append((value, full))
        return children


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable()


def _fault(at: yaml.Node | yaml.Event, problem: str) -> _Unfit:
    return _Unfit(None, None, problem, at.start_mark)  # type: ignore[arg-type]  # the stubs have the C parser's, too
