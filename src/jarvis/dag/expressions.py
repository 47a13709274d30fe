"""PURE: the language of conditions and templates: values in, one value out, in bounded time and memory.

Python's expressions over plain data, evaluated by simpleeval with everything taken out that could stall or reach out: no
attributes but keys of objects, no methods, no formatting, no comprehensions, no powers, calls of the functions below alone.
"""

import ast
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from simpleeval import DEFAULT_OPERATORS, InvalidExpression, SimpleEval

from jarvis.core.errors import JarvisError

MAX_LENGTH = 2000
MAX_NODES = 300
MAX_NESTING = 30
MAX_UNITS = 400_000
"""Elements and characters that one evaluation may make, all values together."""
MAX_NUMBER = 1 << 256
TEMPLATE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)

_NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Attribute, ast.Subscript, ast.Slice, ast.Call, ast.UnaryOp,
    ast.Not, ast.USub, ast.UAdd, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BoolOp,
    ast.And, ast.Or, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is,
    ast.IsNot, ast.IfExp, ast.List, ast.Tuple, ast.Dict,
)  # fmt: skip
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}


class BadExpression(JarvisError):
    """It cannot be read, is not allowed, or cannot be evaluated here."""

    code = "bad_expression"
    hint = "see docs/workflows.md for the language"


class Unsaid:
    """A value that is there and that no expression can see; ``why`` is told to whoever reads it."""

    def __init__(self, why: str) -> None:
        self.why = why


class _Spent:
    """What an evaluation has made so far."""

    def __init__(self) -> None:
        self.units = 0

    def take(self, value: Any) -> Any:
        if isinstance(value, str | list | tuple | dict):
            self.units += len(value)
        elif isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise BadExpression("a number grows beyond 256 bits")
        if self.units > MAX_UNITS:
            raise BadExpression(f"it makes more than {MAX_UNITS:,} elements")
        return value


# ---------------------------------------------------------------- functions


def _range(*bounds: int) -> list[int]:
    if not 1 <= len(bounds) <= 3 or not all(isinstance(b, int) for b in bounds):
        raise BadExpression("range takes one to three whole numbers")
    made = range(*bounds)
    if max(len(made), 0) > 100_000:
        raise BadExpression("range gives at most 100,000 numbers")
    return list(made)


def _join(values: list[Any], between: str = "") -> str:
    parts = [to_text(v) for v in values]
    if sum(map(len, parts)) + len(parts) * len(between) > MAX_UNITS:
        raise BadExpression(f"join makes more than {MAX_UNITS:,} characters")
    return between.join(parts)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise BadExpression("the JSON is nested too deep") from None


def _quote(value: Any) -> str:
    """One word of a shell command."""
    return "'" + to_text(value).replace("'", "'\"'\"'") + "'"


def _get(where: Any, key: Any, default: Any = None) -> Any:
    """The value under a key or at a position, or the default when there is none."""
    if isinstance(where, dict):
        return _said(where.get(key, default))
    if isinstance(where, list) and isinstance(key, int) and -len(where) <= key < len(where):
        return where[key]
    return default


def _unique(values: list[Any]) -> list[Any]:
    return list({json.dumps(v, sort_keys=True): v for v in values}.values())


def to_text(value: Any) -> str:
    """How a value stands in a text: as it is, or as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _round(number: float, digits: int = 0) -> float:
    if not 0 <= digits <= 20:
        raise BadExpression("round takes a number and 0 to 20 digits")
    return round(number, digits) if digits else round(number)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": len, "min": min, "max": max, "sum": sum, "abs": abs, "round": _round, "int": int, "float": float, "bool": bool,
    "str": to_text, "sorted": sorted, "reversed": lambda values: list(values)[::-1], "range": _range, "join": _join,
    "split": lambda text, between=None: str(text).split(between), "lines": lambda text: str(text).splitlines(),
    "lower": lambda text: str(text).lower(), "upper": lambda text: str(text).upper(), "strip": lambda t: str(t).strip(),
    "startswith": lambda text, what: str(text).startswith(what), "endswith": lambda text, what: str(text).endswith(what),
    "keys": list, "values": lambda where: list(where.values()), "get": _get, "any": any, "all": all,
    "flatten": lambda lists: [x for part in lists for x in part], "unique": _unique, "quote": _quote,
    "from_json": _from_json, "to_json": lambda value: json.dumps(value, ensure_ascii=False),
}  # fmt: skip
"""What expressions may call. Each takes and gives plain values."""


# ---------------------------------------------------------------- reading


def _nesting(node: ast.AST, depth: int = 0) -> int:
    if depth > MAX_NESTING:
        return depth
    return max((_nesting(child, depth + 1) for child in ast.iter_child_nodes(node)), default=depth)


@lru_cache(20_000)
def parse(text: str) -> ast.expr:
    """The tree of an allowed expression; raises :class:`BadExpression`."""
    if not text.strip():
        raise BadExpression("the expression is empty")
    if len(text) > MAX_LENGTH:
        raise BadExpression(f"the expression has {len(text)} characters of at most {MAX_LENGTH}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise BadExpression(f"{_shown(text)} is not an expression: {said}") from None
    nodes = list(ast.walk(tree))
    if len(nodes) > MAX_NODES or _nesting(tree) > MAX_NESTING:
        raise BadExpression(f"{_shown(text)} is too long or nested too deep")
    for node in nodes:
        _check(node, text)
    return tree.body


def _check(node: ast.AST, text: str) -> None:
    if not isinstance(node, _NODES):
        raise BadExpression(f"{_shown(text)}: {type(node).__name__} is not part of the language")
    if isinstance(node, ast.Constant) and not isinstance(node.value, str | int | float | bool | None):
        raise BadExpression(f"{_shown(text)}: {node.value!r} is not a plain value")
    if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS):
        name = ast.unparse(node.func)
        raise BadExpression(
            f"{_shown(text)}: there is no function {name[:40]}; there are {', '.join(sorted(FUNCTIONS))}"
        )
    if isinstance(node, ast.Call) and (node.keywords or any(isinstance(a, ast.Starred) for a in node.args)):
        raise BadExpression(f"{_shown(text)}: functions take plain arguments")


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:57] + "...")


def templates(value: Any) -> Iterator[str]:
    """Every expression within ``${{ }}`` in a value, in whatever it holds."""
    if isinstance(value, str):
        yield from (match.group(1) for match in TEMPLATE.finditer(value))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from templates(key)
            yield from templates(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from templates(inner)


@lru_cache(20_000)
def names(text: str) -> frozenset[str]:
    """The variables that an expression reads, those of ``steps`` and ``params`` with their key: ``steps.load``, ``item``."""
    found: set[str] = set()
    inner: set[ast.AST] = set()
    for node in ast.walk(parse(text)):
        root = node.value if isinstance(node, ast.Attribute | ast.Subscript) else None
        if isinstance(root, ast.Name) and root.id in ("steps", "params"):
            key = node.attr if isinstance(node, ast.Attribute) else None
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.slice, ast.Constant)
                and isinstance(node.slice.value, str)
            ):
                key = node.slice.value
            if key is not None:
                found.add(f"{root.id}.{key}")
                inner.add(root)
        if isinstance(node, ast.Call):
            inner.add(node.func)
    for node in ast.walk(parse(text)):
        if isinstance(node, ast.Name) and node not in inner and node.id not in _CONSTANTS:
            found.add(node.id)
    return frozenset(found)


def names_in(value: Any) -> frozenset[str]:
    """The variables that the templates in a value read."""
    return frozenset().union(*(names(text) for text in templates(value)))


# ---------------------------------------------------------------- evaluating


class _Evaluator(SimpleEval):  # type: ignore[misc]  # it ships no types
    """Of a tree that :func:`parse` has let through."""

    def __init__(self, variables: Mapping[str, Any], spent: _Spent) -> None:
        operators = {kind: _counted(act, spent) for kind, act in DEFAULT_OPERATORS.items()}
        operators[ast.Mod] = _modulo
        operators[ast.Mult] = _counted(_times, spent)
        functions = {name: _counted(act, spent) for name, act in FUNCTIONS.items()}
        super().__init__(operators, functions, {**_CONSTANTS, **variables})
        self.nodes |= {ast.List: self._sequence, ast.Tuple: self._sequence, ast.Dict: self._object}
        self._spent = spent

    def value_of(self, tree: ast.expr) -> Any:
        return self._eval(tree)

    def _sequence(self, node: ast.List | ast.Tuple) -> Any:
        return self._spent.take([self._eval(item) for item in node.elts])

    def _object(self, node: ast.Dict) -> Any:
        if any(key is None for key in node.keys):
            raise BadExpression("objects are written out, without **")
        pairs = zip(node.keys, node.values, strict=True)
        return self._spent.take({self._eval(key): self._eval(value) for key, value in pairs})

    def _eval_attribute(self, node: ast.Attribute) -> Any:
        return _item(self._eval(node.value), node.attr, ast.unparse(node.value))

    def _eval_subscript(self, node: ast.Subscript) -> Any:
        where, key = self._eval(node.value), self._eval(node.slice)
        return self._spent.take(where[key]) if isinstance(key, slice) else _item(where, key, ast.unparse(node.value))


def _item(where: Any, key: Any, name: str) -> Any:
    """One key of an object or one position of a list."""
    if isinstance(where, dict):
        if key not in where:
            raise BadExpression(f"{name[:80]} has no {key!r}")
        return _said(where[key])
    if isinstance(where, list | tuple | str) and isinstance(key, int) and not isinstance(key, bool):
        if not -len(where) <= key < len(where):
            raise BadExpression(f"{name[:80]} has {len(where)} elements, none at {key}")
        return where[key]
    raise BadExpression(f"{name[:80]} is {_kind(where)}, which has no {key!r}")


def _said(value: Any) -> Any:
    if isinstance(value, Unsaid):
        raise BadExpression(value.why)
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def _counted(act: Callable[..., Any], spent: _Spent) -> Callable[..., Any]:
    return lambda *args: spent.take(act(*args))


def _modulo(left: Any, right: Any) -> Any:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        raise BadExpression("% is for numbers")
    return left % right


def _times(left: Any, right: Any) -> Any:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        raise BadExpression("* is for numbers")
    return left * right


def evaluate(text: str, variables: Mapping[str, Any]) -> Any:
    """The value of an expression; raises :class:`BadExpression` with what went wrong, and nothing else."""
    tree = parse(text)
    spent = _Spent()
    try:
        return _plain(_Evaluator(variables, spent).value_of(tree), spent)
    except BadExpression as error:
        raise BadExpression(f"{_shown(text)}: {error}") from None
    except InvalidExpression as error:
        raise BadExpression(f"{_shown(text)}: {getattr(error, 'message', '') or error}") from None
    except RecursionError:
        raise BadExpression(f"{_shown(text)} is nested too deep") from None
    except Exception as error:  # noqa: BLE001 - whatever a function says of its arguments is told to who wrote it
        raise BadExpression(f"{_shown(text)}: {type(error).__name__}: {str(error)[:200]}") from None


def _plain(value: Any, spent: _Spent) -> Any:
    """Only what JSON can say leaves an evaluation."""
    if isinstance(value, tuple | list):
        return [_plain(v, spent) for v in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise BadExpression("the keys of an object are texts")
        return {key: _plain(v, spent) for key, v in value.items()}
    if isinstance(value, float) and (not math.isfinite(value)):
        raise BadExpression("the result is not a number")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise BadExpression("the result holds a number beyond 64 bits")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise BadExpression(f"the result is {_kind(_said(value))}, not a plain value")


def render(value: Any, variables: Mapping[str, Any]) -> Any:
    """A value with its templates filled in. A text that is one template alone becomes what its expression gives."""
    if isinstance(value, str):
        if "${{" not in value:
            return value
        whole = TEMPLATE.fullmatch(value.strip())
        if whole is not None and "}}" not in whole.group(1):
            return evaluate(whole.group(1), variables)
        return TEMPLATE.sub(lambda match: to_text(evaluate(match.group(1), variables)), value)
    if isinstance(value, dict):
        return {render_text(key, variables): render(inner, variables) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [render(inner, variables) for inner in value]
    return value


def render_text(value: str, variables: Mapping[str, Any]) -> str:
    """The same where only a text will do."""
    if "${{" not in value:
        return value
    return TEMPLATE.sub(lambda match: to_text(evaluate(match.group(1), variables)), value)
