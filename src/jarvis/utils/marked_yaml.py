"""YAML as plain data, and the line of every value in it. Of YAML's types only those of JSON: ``on`` is a text, a date is one."""

import re
from typing import Any

import yaml

Place = tuple[str | int, ...]
MAX_DEPTH = 40
MAX_VALUES = 1_000_000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,30})\Z")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?\Z")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}
_PLAIN = "tag:yaml.org,2002:"
_TAGS = {_PLAIN + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")}


class Unreadable(Exception):
    """It is not YAML, or not plain data. ``line`` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def read(text: str) -> tuple[Any, dict[Place, int]]:
    """The data and the line of each value (of an object's value: the line of its key)."""
    try:
        _check_depth(text)
        node = yaml.compose(text, Loader=_LOADER)
        lines: dict[Place, int] = {}
        if node is None:
            return None, {(): 1}
        return _Reader(lines).value(node, ()), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        line = _opened(text) or (mark.line + 1 if mark is not None else 1)
        raise Unreadable(" ".join(said.split()), line) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unreadable(" ".join(str(error).split()) or "it is not YAML", _line_of(text, error)) from None


def _opened(text: str) -> int | None:
    """Where something was opened that is not closed, or a quote whose other one is lines later: the parser notices further down."""
    flows: list[int] = []
    quote: int | None = None
    try:
        for token in yaml.scan(text, Loader=_LOADER):
            line = token.start_mark.line + 1
            if isinstance(token, yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken):
                flows.append(line)
            elif isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken) and flows:
                flows.pop()
            elif isinstance(token, yaml.ScalarToken) and token.style in tuple("'\"") and token.end_mark.line >= line:
                quote = line
    except yaml.MarkedYAMLError as error:
        if error.context_mark is not None and "quoted" in (error.context or ""):
            return error.context_mark.line + 1
    return flows[0] if flows else quote


def _line_of(text: str, error: Exception) -> int:
    position = getattr(error, "position", None)
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 1


def _check_depth(text: str) -> None:
    """The composer goes down by recursion: what is nested too deep must not reach it."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise Unreadable(
                    f"nested more than {MAX_DEPTH} deep", event.start_mark.line + 1 if event.start_mark else 1
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Reader:
    def __init__(self, lines: dict[Place, int]) -> None:
        self._lines = lines
        self._values = 0

    def value(self, node: Any, place: Place, line: int | None = None) -> Any:
        here = node.start_mark.line + 1
        self._values += 1
        if self._values > MAX_VALUES:
            raise Unreadable(f"more than {MAX_VALUES:,} values, aliases written out", here)
        self._lines.setdefault(place, here if line is None else line)
        if isinstance(node, yaml.MappingNode):
            return self._object(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, at)) for at, item in enumerate(node.value)]
        return _scalar(node, here)

    def _object(self, node: Any, place: Place) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if node.tag != _PLAIN + "map":
            raise Unreadable(f"{node.tag} is not plain data", node.start_mark.line + 1)
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise Unreadable("a key is a text", line)
            if key.tag == _PLAIN + "merge":
                raise Unreadable("'<<' is not taken: write defaults instead", line)
            if key.value in out:
                raise Unreadable(f"the key {key.value[:60]!r} is there twice", line)
            out[key.value] = self.value(value, (*place, key.value), line)
        return out


def _scalar(node: Any, line: int) -> Any:
    if node.tag not in _TAGS:
        raise Unreadable(f"{node.tag} is not plain data", line)
    text: str = node.value
    if node.style in tuple("'\"|>"):  # quoted or a block: a text
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.match(text):
        return int(text)
    if _NUMBER.match(text):
        return float(text)
    return text


def nearest(lines: dict[Place, int], place: Place) -> int | None:
    """The line of a value, or of what it would be in."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place)
