"""Documents with mistakes: each is refused, and its line is told."""

from random import Random

import msgspec
import pytest

from jarvis.api.workflow_documents import Given, InvalidDocument, Rules, compiled, given_of
from jarvis.core.workflow import WorkflowSpec

HEAD = "name: w\nparams: {n: 3, s: {type: string}}\nsteps:\n"
A = "  - {id: a, command: 'true'}\n"
BAD: list[tuple[str, int | None, str]] = [
    ("", 1, "a workflow is an object"),
    ("- 1\n", 1, "a workflow is an object"),
    ("name: w\n", 1, "expected a list of steps"),
    ("name: w\nsteps: []\n", 2, "expected a list of steps"),
    ("name: w\nsteps: {a: 1}\n", 2, "expected a list of steps"),
    ("name: w\nstepps: []\nsteps: [{id: a, command: x}]\n", 2, "did you mean 'steps'"),
    ("name: [1]\nsteps: [{id: a, command: x}]\n", 1, "1 to 100 characters"),
    ("name: w\nname: v\nsteps: [{id: a, command: x}]\n", 2, "there twice"),
    ("name: w\nsteps:\n  - id: a\n    command: [x\n", 5, "expected"),
    ("name: w\nx: &a 1\ny: *b\n", 3, "alias"),
    ("name: !!python/object:os.system x\nsteps: []\n", 1, "not plain data"),
    ("a: 1\n<<: {b: 2}\n", 2, "not taken"),
    ("[" * 50, 1, "deep"),
    ("a: \x01\n", 1, "control characters"),
    (HEAD + "  - command: x\n", 4, "needs an id"),
    (HEAD + "  - id: 1a\n    command: x\n", 4, "letters, digits"),
    (HEAD + "  - id: a\n", 4, "nothing to do"),
    (HEAD + "  - id: a\n    command: x\n    sleep: 3\n", 4, "two kinds of work"),
    (HEAD + A + "  - id: a\n    command: x\n", 5, "two steps 'a'"),
    (HEAD + A + "  - id: b\n    command: x\n    depends_on: [c]\n", 7, "no step 'c'"),
    (HEAD + A + "  - id: b\n    command: x\n    depends_on: [a, a]\n", 7, "twice"),
    (HEAD + A + "  - id: b\n    command: x\n    depends_on:\n      - {step: a, on: maybe}\n", 8, "success, failure or any"),
    (HEAD + "  - {id: a, command: x, depends_on: [b]}\n  - {id: b, command: x, depends_on: a}\n", 4, "a waits for b waits for a"),
    (HEAD + "  - {id: a, command: x, depends_on: a}\n", 4, "a cycle: a waits for a"),
    (HEAD + "  - {id: a, sleep: 1}\n  - id: b\n    command: x\n    depends_on: [{step: a, on: failure}]\n", 7, "can never run"),
    (HEAD + "  - id: a\n    command: x\n    when: 1 > 2\n", 6, "always false"),
    (HEAD + "  - id: a\n    command: x\n    when: params.m\n", 6, "no parameter 'm'"),
    (HEAD + "  - id: a\n    command: x\n    when: steps.b.state\n", 6, "no such step"),
    (HEAD + A + "  - id: b\n    command: x ${{ steps.a.output }}\n", 6, "does not wait for"),
    (HEAD + "  - id: a\n    command: x ${{ item }}\n", 5, "for_each alone"),
    (HEAD + "  - id: a\n    command: x ${{ 1 + }}\n", 5, "not an expression"),
    (HEAD + "  - id: a\n    command: x ${{ 1\n", 5, "without its"),
    (HEAD + "  - id: a\n    command: x\n    while: open('x')\n", 6, "no function open"),
    (HEAD + "  - id: a\n    command: x\n    for_each: [1]\n    until: last\n", 6, "not beside while or until"),
    (HEAD + "  - id: a\n    command: x\n    for_each: 3\n", 6, "expected a list"),
    (HEAD + "  - id: a\n    command: x\n    for_each: range(params.n) + 'x'\n", 6, "TypeError"),
    (HEAD + "  - id: a\n    command: x\n    concurrency: 2\n", 6, "goes with for_each"),
    (HEAD + "  - id: a\n    command: x\n    cache: yes\n", 6, "cache: expected an object"),
    (HEAD + "  - id: a\n    command: x\n    cache: {ttl: 7d}\n", 6, "key: expected a text"),
    (HEAD + "  - id: a\n    command: x\n    cache: {key: k, tl: 7d}\n", 6, "did you mean 'ttl'"),
    (HEAD + "  - id: a\n    command: x\n    cache: {key: k, ttl: soon}\n", 6, "a duration"),
    (HEAD + "  - id: a\n    command: x\n    cache: {key: k, ttl: 367d}\n", 6, "at most 366 days"),
    (HEAD + "  - id: a\n    command: x\n    cache: {key: '${{ steps.b.output }}'}\n", 6, "no such step"),
    (HEAD + "  - id: a\n    command: x\n    until: last\n    cache: {key: k}\n", 7, "not beside while or until"),
    (HEAD + "  - id: a\n    sleep: 5\n    cache: {key: k}\n", 6, "cache: goes with a task"),
    (HEAD + "  - id: a\n    command: x\n    trigger: some\n", 6, "all, any, none_failed or always"),
    (HEAD + "  - id: a\n    command: x\n    allow_failure: yes\n", 6, "true or false"),
    (HEAD + "  - id: a\n    command: x\n    max_iterations: 0\n    until: last\n", 6, "from 1 to 10,000"),
    (HEAD + "  - id: a\n    command: x\n    resources: {cpu: lots}\n", 6, "resources.cpu"),
    (HEAD + "  - id: a\n    command: x\n    resources: {cpu: '${{ steps.a.output }}'}\n", 6, "does not"),
    (HEAD + "  - id: a\n    command: []\n", 5, "a command"),
    (HEAD + "  - id: a\n    command: {x: 1}\n", 5, "Expected"),
    (HEAD + "  - id: a\n    command: x\n    timeout: soon\n", 6, "a duration"),
    (HEAD + "  - id: a\n    command: x\n    timeout: 0\n", 6, "longer than nothing"),
    (HEAD + "  - id: a\n    switch: params.n\n", 4, "expected an object from values"),
    (HEAD + "  - id: a\n    switch: params.n\n    cases:\n      1: {steps: []}\n", 7, "expected a list of steps"),
    (HEAD + "  - id: a\n    workflow: sub\n", 5, "there is no 'sub'"),
    (HEAD + "  - id: a\n    workflow: {params: {x: {type: integer}}, steps: [{id: b, command: x}]}\n", 4, "needs a value"),
    (HEAD + "  - id: a\n    with: {x: b}\n    workflow: {params: {x: 1}, steps: [{id: b, command: x}]}\n", 5, "an integer"),
    (HEAD + "  - id: a\n    with: {y: 1}\n    workflow: {params: {x: 1}, steps: [{id: b, command: x}]}\n", 5, "no parameter 'y'"),
    (HEAD + "  - id: a\n    steps:\n      - {id: a, command: x}\n", 6, "a step around this one"),
    ("workflows:\n  s:\n    steps: [{id: a, workflow: s}]\nsteps: [{id: b, workflow: s}]\n", 3, "holds itself"),
    ("params: {n: {type: float}}\nsteps: [{id: a, command: x}]\n", 1, "one of string"),
    ("params: {n: {type: [integer]}}\nsteps: [{id: a, command: x}]\n", 1, "one of string"),
    ("params:\n  n: {type: integer, default: x}\nsteps: [{id: a, command: x}]\n", 2, "expected an integer"),
    ("params:\n  n: {type: string, enum: [a], default: b}\nsteps: [{id: a, command: x}]\n", 2, "one of a"),
    ("params: {1a: 3}\nsteps: [{id: a, command: x}]\n", 1, "not a name"),
    ("defaults: {command: x}\nsteps: [{id: a, command: x}]\n", 1, "unknown field"),
    ("output: ${{ steps.b.output }}\nsteps: [{id: a, command: x}]\n", 1, "no such step"),
    ("timeout: ${{ steps.a.output }}\nsteps: [{id: a, command: x}]\n", 1, "params alone"),
]  # fmt: skip


def read(text: str, **params: object) -> WorkflowSpec:
    import json

    body = json.dumps({"document": text, "params": params}).encode()
    return compiled(given_of(body, "application/json"), Rules(1e9))


@pytest.mark.parametrize(("text", "line", "said"), BAD)
def test_a_mistake_is_told_with_its_line(text: str, line: int | None, said: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        read(text, **({"s": "v"} if "s: {type: string}" in text else {}))
    _, told, message = refused.value.problems[0]
    assert said in message
    assert told is not None and line is not None and abs(told - line) <= 1, refused.value.problems


def test_every_mistake_is_told_and_the_same_one_once() -> None:
    with pytest.raises(InvalidDocument) as refused:
        read("steps:\n  - {id: a, comand: x}\n  - {id: b, command: x, depends_on: [c, d], wen: 1}\n")
    assert len(refused.value.problems) == 3
    assert refused.value.problems == sorted(refused.value.problems, key=lambda p: p[1] or 0)


def test_values_of_parameters_are_checked() -> None:
    text = "params: {n: {type: integer, enum: [1, 2]}, l: [1]}\nsteps: [{id: a, command: x}]\n"
    assert read(text, n=2).params == {"n": 2, "l": [1]}
    for params, said in (
        ({"n": 3}, "one of 1, 2"),
        ({}, "needs a value"),
        ({"n": 1, "m": 1}, "no parameter 'm'"),
        ({"n": True}, "integer"),
    ):
        with pytest.raises(InvalidDocument, match=said):
            read(text, **params)


def test_bodies_that_are_no_documents() -> None:
    for body, kind in ((b"\xff", "application/json"), (b"{", "application/json"), (b'{"document": 1, "x": 2}', ""),
                       (b'{"document": {}, "params": 3}', ""), (b"a: [", "application/yaml")):  # fmt: skip
        with pytest.raises(InvalidDocument):
            given_of(body, kind)


def test_json_has_lines_too() -> None:
    body = b'{\n  "name": "w",\n  "steps": [\n    {"id": "a", "command": "x", "wat": 1}\n  ]\n}'
    with pytest.raises(InvalidDocument) as refused:
        compiled(given_of(body, "application/json"), Rules(1e9))
    assert refused.value.problems[0][1] == 4


def test_words_of_yaml_are_texts_and_not_truths() -> None:
    spec = read("steps:\n  - {id: a, command: [echo, on, no, 2020-01-01, 1:30, 012, 5, '3']}\n")
    task = spec.block.steps[0].task
    assert task is not None
    assert task.command == ("echo", "on", "no", "2020-01-01", "1:30", "012", "5", "3")


def test_defaults_are_joined_and_parameters_filled_in_before_anything_runs() -> None:
    spec = read(
        "params: {cpus: 2, who: me}\ndefaults: {resources: {cpu: 1, memory: 1Gi}, env: {A: a}}\n"
        "steps:\n  - {id: a, command: 'echo ${{ params.who }}', resources: {cpu: '${{ params.cpus }}'}, env: {B: b}}\n"
    )
    task = spec.block.steps[0].task
    assert task is not None
    assert (task.command, task.resources, task.env) == (
        "echo me",
        {"cpu": 2000, "memory": 1 << 30},
        {"A": "a", "B": "b"},
    )


def test_ten_thousand_steps_are_taken() -> None:
    steps = [{"id": f"s{n}", "command": ["true"], "depends_on": [f"s{n - 1}"] if n else []} for n in range(10_000)]
    import json

    spec = compiled(given_of(json.dumps({"steps": steps}).encode(), "application/json"), Rules(1e9))
    assert len(spec.block.steps) == 10_000


WHOLE = """
name: whole
params:
  n: {type: integer, default: 3}
  word: text
defaults:
  resources: {cpu: 0.1}
steps:
  - id: first
    command: [echo, "${{ params.word }}"]
    retry: {max_attempts: 2}
  - id: each
    depends_on: [first]
    for_each: range(params.n)
    concurrency: 2
    command: echo ${{ item }}
  - id: group
    depends_on:
      - step: each
        on: any
    steps:
      - id: inner
        command: "true"
        timeout: 1h
      - id: after
        depends_on: [inner]
        sleep: 2
  - id: choose
    depends_on: [group]
    trigger: none_failed
    switch: params.word
    cases:
      text: {steps: [{id: x, command: "true"}]}
  - id: poll
    until: last.done
    max_iterations: 5
    command: "true"
finally:
  - id: clean
    when: steps.first.state == 'succeeded'
    command: "true"
""".strip()
WRONG_VALUES = ("[[", "{a: 1}", "'", "${{ nothing }}", "-1", "nope nope", "[1, {x: 2}]", "null", "!!set x")


def mutated(draw: Random) -> tuple[str, int]:
    """The document with one line changed, and the number of that line."""
    lines = WHOLE.splitlines()
    at = draw.randrange(len(lines))
    line = lines[at]
    key, colon, value = line.partition(":")
    kind = draw.randrange(5)
    if kind == 0 and colon:
        place = draw.randrange(len(key.rstrip()))
        line = key[:place] + draw.choice("qZ_9") + key[place:] + colon + value
    elif kind == 1 and value.strip():
        line = f"{key}: {draw.choice(WRONG_VALUES)}"
    elif kind == 2:
        place = draw.randrange(len(line))
        line = line[:place] + line[place + 1 :]
    elif kind == 3:
        place = draw.randrange(len(line) + 1)
        line = line[:place] + draw.choice("\\t{}[]'\"&*!|>%@`:#,\x01\u2028") + line[place:]
    else:
        line = f"{line}\n{line}"
    lines[at] = line
    return "\n".join(lines), at + 1


NULLS = [
    ("timeout", "command: x"), ("concurrency", "for_each: [x]"), ("fail_fast", "for_each: [x]"), ("allow_failure", "sleep: 1"),
    ("max_iterations", "until: last"), ("delay", "until: last"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "beside"), NULLS)
def test_a_field_that_is_null_is_as_one_that_is_not_there(field: str, beside: str) -> None:
    work = "" if beside.startswith(("command", "sleep")) else "    command: x\n"
    text = f"description:\nconcurrency: ~\nsteps:\n  - id: a\n{work}    {beside}\n"
    spec = read(f"{text}    {field}: null\n")
    assert spec == read(text)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=WorkflowSpec) == spec


def test_an_approval_that_says_nothing() -> None:
    spec = read("steps: [{id: a, approval: {message: null}}]\n")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=WorkflowSpec) == spec


def test_whatever_is_changed_is_taken_or_refused_with_the_line_of_the_change() -> None:
    """Nothing but a document's own error leaves the compiler: no request ends in a mistake of the server."""
    draw, refused, near = Random(7), 0, 0
    for _ in range(1000):
        text, line = mutated(draw)
        try:
            spec = read(text)
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=WorkflowSpec) == spec, "it can be kept"
        except InvalidDocument as error:
            refused += 1
            near += any(told is not None and abs(told - line) <= 1 for _, told, _ in error.problems)
    print(f"refused={refused} of 1000, line within one: {near / refused:.1%}")  # noqa: T201 - the figure is the point
    assert refused > 500
    assert near / refused >= 0.95


def test_what_happens_is_known_later_than_the_other_parameters() -> None:
    step = {"id": "a", "command": ["x", "${{ params.event.n }}", "${{ params.n }}"], "when": "params.event.n > 1"}
    params = {"event": {"type": "object"}, "n": 7}
    spec = compiled(Given({"steps": [step], "params": params}), Rules(0.0), on_event=True)
    task = spec.block.steps[0].task
    assert task is not None
    assert task.command == ("x", "${{ params.event.n }}", "7")
    assert spec.params == {"event": {}, "n": 7}
    by_hand = compiled(Given({"steps": [step], "params": params}, {"event": {"n": 5}}), Rules(0.0), on_event=True)
    assert by_hand.params["event"] == {"n": 5}, "that is for runs by hand"
    with pytest.raises(InvalidDocument, match="event: has no default"):
        compiled(Given({"steps": [step], "params": params}), Rules(0.0))
    with pytest.raises(InvalidDocument, match="its type is object"):
        compiled(Given({"steps": [step], "params": params | {"event": ""}}), Rules(0.0), on_event=True)
    early = {"id": "a", "command": "x", "resources": {"cpu": "${{ params.event.n }}"}}
    with pytest.raises(InvalidDocument, match="resources: may read"):
        compiled(Given({"steps": [early], "params": params}), Rules(0.0), on_event=True)
