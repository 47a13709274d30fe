"""The language of conditions: what it can say, and that nothing in it stalls, grows or reaches out."""

from typing import Any

import pytest

from jarvis.dag.expressions import BadExpression, evaluate, names, names_in, parse, render

VALUES: dict[str, Any] = {
    "steps": {"load": {"state": "succeeded", "output": {"rows": [3, 1, 2], "name": "ü"}}, "a-b": {"output": 1}},
    "params": {"n": 3, "flag": True},
    "item": None,
}
GOOD: list[tuple[str, Any]] = [
    ("1 + 2 * 3", 7),
    ("params.n >= 3 and not false", True),
    ("steps.load.output.rows[0]", 3),
    ("steps.load.output['rows'][-1]", 2),
    ("steps['a-b'].output", 1),
    ("sum(steps.load.output.rows)", 6),
    ("sorted(steps.load.output.rows)[:2]", [1, 2]),
    ("len(steps.load.output.name)", 1),
    ("item == null", True),
    ("'a' if params.flag else 'b'", "a"),
    ("[1, 'x', {'k': params.n}]", [1, "x", {"k": 3}]),
    ("range(2, 8, 2)", [2, 4, 6]),
    ("join([1, 'b', true], '-')", "1-b-true"),
    ("get(steps.load.output, 'none', 5)", 5),
    ("get([1, 2], 7)", None),
    ("keys({'a': 1}) + values({'b': 2})", ["a", 2]),
    ("unique([1, 1, 2]) + flatten([[3], [4]])", [1, 2, 3, 4]),
    ("split('a b') + split('c,d', ',') + lines('e')", ["a", "b", "c", "d", "e"]),
    ("from_json('[1, {}]')", [1, {}]),
    ("to_json({'a': [1]})", '{"a": [1]}'),
    ('quote("it\'s")', "'it'\"'\"'s'"),
    ("round(2.567, 1) + round(1.5)", 4.6),
    ("upper(strip(' a ')) + lower('B')", "Ab"),
    ("startswith('abc', 'a') and endswith('abc', 'c')", True),
    ("7 % 4 // 1 + -1", 2),
    ("1 < 2 <= 2 != 3", True),
    ("2 in steps.load.output.rows and 9 not in steps.load.output.rows", True),
    ("str(params.n) + str('x') + str(null)", "3x"),
    ("reversed([1, 2])", [2, 1]),
    ("min(3, 1) + max([1, 2]) + abs(-1) + int('4')", 8),
    ("float(1) / 4", 0.25),
    ("any([0, 1]) and all([1, 1])", True),
]
BAD = [
    "", "1 +", "a b", "x" * 3000, "-" * 100 + "1", "+".join(["1"] * 400),
    "lambda: 1", "[x for x in [1]]", "f'{1}'", "9 ** 9 ** 9", "1 << 9", "__import__('os')", "steps.__class__",
    "().__class__", "''.format(1)", "'%9999999d' % 1", "'a' * 9", "[0] * 9", "params.n.real", "open('/etc/passwd')",
    "len(1)", "len(*[1])", "round(1, -9)", "round(1, digits=2)", "range(10 ** 9)", "range(200000)", "range('a')", "range()",
    "unknown", "steps.nothing", "steps.load.output.rows[9]", "steps.load.output.rows['a']", "params.n['a']", "null.a",
    "item.x", "1 / 0", "{1: 2}", "{**params}", "b'a'", "1j", "...", "yield", "x := 1", "print(1)", "1 if", "'a' < 1",
    "from_json('{')", "from_json('" + "[" * 1500 + "')", "int('9' * 9)", "sum(['a'])", "sorted([1, 'a'])", "float('nan')",
    "float('inf')", "flatten(1)", "join(range(100000), 'aaaaaaaaaa')", "split('a', '')", "keys(1)", "values([])", "get()",
    "+".join(["range(100000)"] * 5), "9" * 70 + "*" + "9" * 70, "min([])", "\0", "1; 2", "a = 1", "len(range)", "range",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), GOOD)
def test_it_says(text: str, value: Any) -> None:
    assert evaluate(text, VALUES) == value


@pytest.mark.parametrize("text", BAD)
def test_it_refuses_with_a_reason(text: str) -> None:
    with pytest.raises(BadExpression) as refused:
        evaluate(text, VALUES)
    assert 0 < len(str(refused.value)) < 600


def test_what_is_read_is_known_before_it_runs() -> None:
    assert names("steps.a.output > params['n'] + len(item) and true") == {"steps.a", "params.n", "item"}
    assert names("steps[item]") == {"steps", "item"}
    assert names_in({"${{ a }}": ["x ${{ b }} ${{ steps.c }}", 1, None]}) == {"a", "b", "steps.c"}


def test_a_template_alone_keeps_its_type_and_others_are_texts() -> None:
    assert render("${{ params.n }}", VALUES) == 3
    assert render(" ${{ steps.load.output.rows }} ", VALUES) == [3, 1, 2]
    assert render("n=${{ params.n }}, ${{ params.flag }}, ${{ item }}, ${{ [1] }}", VALUES) == "n=3, true, , [1]"
    assert render({"a${{ params.n }}": ["${{ params.n }}", 7, "plain"]}, VALUES) == {"a3": [3, 7, "plain"]}


def test_trees_are_shared() -> None:
    assert parse("1 + 1") is parse("1 + 1")
