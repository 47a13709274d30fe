"""The short way to read a member of a batch says what the full way says, or nothing."""

import random

import msgspec

from jarvis.api.alike import alike
from jarvis.api.schemas.task_in import TaskFast
from jarvis.api.schemas.task_rules import to_spec
from jarvis.core.errors import InvalidValue
from jarvis.core.task import TaskSpec

NOW, LONGEST = 1_800_000_000.0, 300
decode = msgspec.json.Decoder(TaskFast).decode
COMMANDS = (
    '["echo","1"]', '["/bin/echo", "2"]', '"sleep 1"', '"/usr/bin/env x"', '["é", "ü"]', "[]", '""', '" "', "null", "7", '["a", 7]',
    '["a\\u0000b"]', '["a\\tb"]', '["a"', '["a"],"hold":true', '["a"],"command":["b"]', '"a","name":"n"', '"a"}', "", '["\x07"]',
    '["' + "x" * LONGEST + '"]', "[" * 200,
)  # fmt: skip
FIELDS = (
    '"hold":true', '"name":"n"', '"name":""', '"time_limit":60', '"time_limit":60.0', '"resources":{"memory":1024}',
    '"resources":{"memory":1024.0}', '"resources":{"command":1}', '"env":{"command":"x"}', '"env":{"A":"\\"command\\":"}',
    '"command":"early"', '"\\u0063ommand":"other"', '"image":"i"', f'"script":"{"0" * 64}"',
    '"entrypoint":["command"]', '"what":1', '"cwd":"command"',
    '"function":{"code":"c","python":"3"}',
)  # fmt: skip
KEYS = ('"command":', '"command" : ', '"command":\n')


def member(rng: random.Random, around: list[str], key: str) -> bytes:
    fields = [*around]
    at = rng.randrange(len(fields) + 1) if rng.random() < 0.2 else len(fields) // 2
    fields.insert(at, key + rng.choice(COMMANDS))
    return ("{" + ", ".join(fields) + "}").encode()


def read_in_full(body: bytes) -> TaskSpec | None:
    """None where it is refused."""
    try:
        return to_spec(decode(body), NOW)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidValue):
        return None


def test_any_member_is_read_as_in_full_or_left_to_that() -> None:
    rng = random.Random(5)
    short = 0
    for _ in range(1500):
        around, key = rng.sample(FIELDS, rng.randrange(4)), rng.choice(KEYS)
        first = member(rng, around, key)
        known = read_in_full(first)
        if known is None or len(first) > LONGEST:
            continue
        likeness = alike(first, decode(first), known, decode)
        for body in [member(rng, around, key if rng.random() < 0.8 else rng.choice(KEYS)) for _ in range(8)]:
            told = likeness.read([body], 0, 1, LONGEST)
            assert told in ([], [read_in_full(body)]), (first, body)
            assert len(body) <= LONGEST or not told
            short += len(told)
    assert short > 300, "many are read the short way"


def test_many_members_are_read_as_each_in_full_or_left_to_that() -> None:
    rng = random.Random(6)
    whole = msgspec.json.Decoder(list[msgspec.Raw])
    together = 0
    for _ in range(1500):
        around, key = rng.sample(FIELDS, rng.randrange(3)), rng.choice(KEYS)
        first = member(rng, around, key)
        known = read_in_full(first)
        if known is None or len(first) > LONGEST:
            continue
        usual = [first.replace(b"echo", word) for word in (b"a", b"],[", b"},{", b'\\"', b"\0")]
        bodies = [member(rng, around, key) if rng.random() < 0.2 else rng.choice(usual) for _ in range(4)]
        try:
            bodies = list(map(bytes, whole.decode(b"[" + b",".join(bodies) + b"]")))
        except msgspec.DecodeError:  # no member of a batch is like that
            continue
        told = alike(first, decode(first), known, decode).read(bodies, 0, len(bodies), LONGEST)
        assert told == [read_in_full(body) for body in bodies[: len(told)]], (first, bodies)
        together += len(told) == len(bodies)
    assert together > 200, "many are read together"


def test_a_run_ends_at_the_first_that_is_another() -> None:
    bodies = [b'{"command":["echo","%d"],"hold":true}' % n for n in range(10)]
    bodies[6] = b'{"command":["echo","6"],"hold":false}'
    likeness = alike(bodies[0], decode(bodies[0]), to_spec(decode(bodies[0]), NOW), decode)
    assert [spec.command for spec in likeness.read(bodies, 2, 10, LONGEST)] == [("echo", str(n)) for n in range(2, 6)]
    assert likeness.read(bodies, 2, 4, LONGEST) == likeness.read(bodies, 2, 10, LONGEST)[:2]


def test_what_has_no_command_is_like_its_copies_alone() -> None:
    body = b'{"image":"i","hold":true}'
    spec = to_spec(decode(body), NOW)
    assert alike(body, decode(body), spec, decode).read([body, body, body + b" "], 0, 3, LONGEST) == [spec, spec]
