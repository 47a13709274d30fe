"""From what users write to a TaskSpec: the rules, for single tasks and batches alike."""

import base64
import binascii
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from jarvis.api.schemas.task_in import MAX_PUSHES, FunctionFast, FunctionIn, RetryFast, RetryIn, TaskFast, TaskIn
from jarvis.api.schemas.values import MAX_ID, digest, duration, instant, text, word
from jarvis.core.errors import InvalidValue
from jarvis.core.globs import MAX_GLOBS, safe_glob
from jarvis.core.manifest import safe_path
from jarvis.core.resources import Resources, parse_bytes, parse_resources
from jarvis.core.retry import RetryPolicy
from jarvis.core.states import Cause
from jarvis.core.task import (
    BALANCERS,
    INLINE_LIMIT,
    LICENSE,
    MAX_PRIORITY,
    MOST_WEIGHT,
    PRIORITIES,
    Affinity,
    AfterKind,
    ArraySpec,
    Constraint,
    Container,
    Dependency,
    FunctionCall,
    Preference,
    StepInput,
    TaskSpec,
    parse_array,
)

MAX_ITEMS = 1000
_AFTER: dict[str, AfterKind] = {"afterok": "afterok", "afterany": "afterany", "afternotok": "afternotok"}
_CONSTRAINT = re.compile(r"([A-Za-z0-9._/-]{1,100})(?:(!?=)(.{0,200}))?\Z")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEY = re.compile(r"[A-Za-z0-9._/-]{1,100}\Z")
_NEAR = re.compile(r"([A-Za-z0-9._/-]{1,100})(?:@([A-Za-z0-9._/-]{1,100}))?(?::([0-9]{1,3}))?\Z")
_LICENSE = re.compile(LICENSE + r"\Z")
_INTEGER = re.compile(r"-?\d{1,7}\Z")
_CLASS = re.compile(r"exit:\d{1,3}|signal:\d{1,2}|exception:[\w.]{1,200}")
_CLASSES = frozenset({"any", *Cause})
_ONE_CPU = {"cpu": 1000}
_ONCE = RetryPolicy()


def to_spec(task: TaskIn | TaskFast, now: float) -> TaskSpec:
    """The spec that is meant; raises :class:`InvalidValue` with the field's path."""
    _check_body(task)
    begin = None if task.begin is None else instant(task.begin, "begin", now)
    deadline = None if task.deadline is None else instant(task.deadline, "deadline", now)
    if deadline is not None and deadline <= max(now, begin or 0.0):
        raise InvalidValue("deadline", task.deadline, "an instant to come, after begin")
    return TaskSpec(
        name=_name(task),
        command=_command(task),
        script=None if task.script is None else digest(task.script, "script"),
        function=None if task.function is None else _function(task.function),
        container=None if task.image is None else _container(task, task.image),
        resources=_resources(task.resources),
        nodes=task.nodes if task.nodes == 1 else _nodes(task),
        queue=word(task.queue, "queue", 100) if task.queue != "default" else "default",
        priority=priority(task.priority),
        array=_array(task),
        after=tuple([_dependency(a, f"after.{i}") for i, a in enumerate(_few(task.after, "after"))]),
        begin=begin,
        deadline=deadline,
        time_limit=None if task.time_limit is None else _positive(task.time_limit, "time_limit"),
        soft_limit=None if task.soft_limit is None else _positive(task.soft_limit, "soft_limit"),
        grace=10.0 if task.grace == 10.0 else duration(task.grace, "grace"),
        retry=_retry(task.retry),
        on_lost=task.on_lost,
        preemptible=task.preemptible,
        hold=task.hold,
        constraints=tuple([_constraint(c, i) for i, c in enumerate(_few(task.constraints, "constraints"))]),
        tolerations=tuple([word(t, f"tolerations.{i}") for i, t in enumerate(_few(task.tolerations, "tolerations"))]),
        keys=_keys(task.keys) if task.keys else (),
        affinities=_affinities(task) if task.near or task.apart else (),
        preferences=_preferences(task.prefer) if task.prefer else (),
        licenses=_licenses(task.licenses) if task.licenses else {},
        balancer=None if task.balancer is None else _balancer(task.balancer),
        env=_env(task.env) if task.env else {},
        cwd=_path(task.cwd, "cwd"),
        stdout=_path(task.stdout, "stdout"),
        stderr=_path(task.stderr, "stderr"),
        stdin=_path(task.stdin, "stdin"),
        pty=task.pty,
        output_limit=None if task.output_limit is None else _size(task.output_limit, "output_limit"),
        login_shell=task.login_shell,
        push=_pushed(task),
        artifacts=_globs(task),
    )


def _command(task: TaskIn | TaskFast) -> tuple[str, ...] | str | None:
    return tuple(task.command) if isinstance(task.command, list) else task.command


def _check_body(task: TaskIn | TaskFast) -> None:
    """One kind of work, and all of it storable."""
    command = task.command
    if task.function is not None:
        if command is not None or task.script is not None or task.image is not None:
            raise InvalidValue("function", "a function and a command", "one kind of work")
    elif task.script is None and not command and (command is not None or task.image is None):
        raise InvalidValue("command", command, "a command (list or text), a script, an image or a function")
    if isinstance(command, str):
        text(command, "command")
    elif command is not None:
        if not command[:1] and task.script is None and task.image is None:
            raise InvalidValue("command", command, "at least the program to run")
        for i, part in enumerate(command):
            text(part, f"command.{i}")
    of_container = (
        task.mounts or task.pull != "missing" or task.network != "bridge" or task.entrypoint or task.container_user
    )
    if task.image is None and of_container:
        raise InvalidValue("image", None, "an image beside pull, mounts, network, entrypoint or container_user")
    if task.image is not None and (task.pty or task.stdin is not None):
        field = "pty" if task.pty else "stdin"
        raise InvalidValue(field, getattr(task, field), "nothing beside an image: a container has no input")


def _nodes(task: TaskIn | TaskFast) -> int:
    """What can be a gang: programs that find each other by their environment."""
    if task.function is not None:
        raise InvalidValue(
            "nodes", task.nodes, "1 for a function: a call has one answer; give several nodes to a command"
        )
    for field in ("near", "apart"):
        if getattr(task, field):
            raise InvalidValue(field, getattr(task, field), "nothing on several nodes: its ranks are apart as it is")
    if task.pty:
        raise InvalidValue("pty", task.pty, "no terminal on several nodes: who would the keys go to?")
    return task.nodes


def _name(task: TaskIn | TaskFast) -> str:
    if task.name is not None:
        return word(task.name, "name")
    if task.function is not None:
        return "function"
    if task.script is not None:
        return "script"
    return named_after(task.command if isinstance(task.command, str) else (task.command or [task.image or "task"])[0])


def named_after(command: str) -> str:
    """The name of a task that was given none: that of the program it runs."""
    program = (command.split(maxsplit=1) or [""])[0].rpartition("/")[2]
    return "".join([c for c in program if c.isprintable()])[:100] or "task"


def _few(items: list[str], field: str) -> list[str]:
    if len(items) > MAX_ITEMS:
        raise InvalidValue(field, len(items), f"at most {MAX_ITEMS} of them")
    return items


def _positive(value: object, field: str) -> float:
    seconds = duration(value, field)
    if seconds <= 0:
        raise InvalidValue(field, value, "longer than nothing")
    return seconds


def _path(value: str | None, field: str) -> str | None:
    if value is None:
        return None
    if not value or len(value) > 4096:
        raise InvalidValue(field, value, "a path of 1 to 4096 characters")
    return text(value, field)


def _pushed(task: TaskIn | TaskFast) -> tuple[str, ...]:
    """Manifests by digest; a step of a workflow may also read them of an earlier one."""
    _check_directory(task)
    if len(task.push) > MAX_PUSHES:
        raise InvalidValue("push", len(task.push), f"at most {MAX_PUSHES} of them")
    return tuple([p if "${{" in p else digest(p, f"push.{i}") for i, p in enumerate(task.push)])


def _globs(task: TaskIn | TaskFast) -> tuple[str, ...]:
    if len(task.artifacts) > MAX_GLOBS:
        raise InvalidValue("artifacts", len(task.artifacts), f"at most {MAX_GLOBS} patterns")
    return tuple([safe_glob(text(p, f"artifacts.{i}"), f"artifacts.{i}") for i, p in enumerate(task.artifacts)])


def _check_directory(task: TaskIn | TaskFast) -> None:
    """What has files runs in a directory of its own."""
    field = "push" if task.push else "artifacts"
    if not getattr(task, field):
        return
    if task.cwd is not None and "${{" not in task.cwd and task.cwd != ".":
        try:
            safe_path(task.cwd, "cwd")
        except InvalidValue:
            expected = f"a path below the task's own directory, in which it runs because of {field}"
            raise InvalidValue("cwd", task.cwd, expected) from None


def _resources(given: Mapping[str, object]) -> Resources:
    """One core unless something else is said; zero is said with ``cpu: 0``."""
    if not given:
        return dict(_ONE_CPU)
    if len(given) > 100:
        raise InvalidValue("resources", len(given), "at most 100 kinds")
    for name, value in given.items():
        _short(value, f"resources.{name}")
    key = tuple([(name, type(value), value) for name, value in given.items()])
    return dict(_parsed(key))


@lru_cache(4096)
def _parsed(given: tuple[tuple[str, type, object], ...]) -> Resources:
    """Thousands of tasks ask for the same. Types are part of the key: 1 and 1.0 are not the same bytes."""
    found = parse_resources({name: value for name, _, value in given})
    return found if any(name == "cpu" for name, _, _ in given) else _ONE_CPU | found


def _short(value: object, field: str) -> object:
    """Numbers written with hundreds of digits mean nothing and overflow."""
    if isinstance(value, str) and len(value) > 40:
        raise InvalidValue(field, value, "an amount")
    return value


def _size(value: object, field: str) -> int:
    return parse_bytes(_short(value, field), field)


def priority(given: int | str) -> int:
    """A word of the table, or a number."""
    if isinstance(given, str):
        if given in PRIORITIES:
            return PRIORITIES[given]
        number = int(given) if given.isascii() and _INTEGER.match(given) else MAX_PRIORITY + 1
    else:
        number = given
    if isinstance(given, bool) or abs(number) > MAX_PRIORITY:
        raise InvalidValue("priority", given, f"{', '.join(PRIORITIES)}, or a number up to {MAX_PRIORITY}")
    return number


def _balancer(given: str) -> str:
    if given not in BALANCERS:
        raise InvalidValue("balancer", given, f"one of {', '.join(sorted(BALANCERS))}")
    return given


def _array(task: TaskIn | TaskFast) -> ArraySpec | None:
    if task.array is None:
        if task.entries is not None:
            raise InvalidValue("entries", task.entries, "given together with array")
        return None
    if len(task.array) > 10_000 or not task.array.isascii():
        raise InvalidValue("array", task.array, "an array like 0-99, 1,3,5-7, 0-99:2 or 0-99%10")
    array = parse_array(task.array)
    if array.ranges[-1][1] > 2**31 - 1:
        raise InvalidValue("array", task.array, "an array with indices below 2**31")
    entries = None if task.entries is None else digest(task.entries, "entries")
    return ArraySpec(array.ranges, array.throttle, entries)


def _dependency(given: str, field: str) -> Dependency:
    """``afterok:42``; a bare id means afterok."""
    kind, _, ident = given.rpartition(":")
    number = int(ident) if ident.isascii() and ident.isdigit() and len(ident) <= 19 else 0
    if (kind or "afterok") not in _AFTER or not 0 < number <= MAX_ID:
        raise InvalidValue(field, given, "afterok:ID, afterany:ID or afternotok:ID")
    return Dependency(_AFTER[kind or "afterok"], number)


def _keys(given: list[str]) -> tuple[str, ...]:
    for i, key in enumerate(_few(given, "keys")):
        if not _KEY.match(key):
            raise InvalidValue(f"keys.{i}", key, "a key of letters, digits, '.', '_', '/' and '-'")
    return tuple(dict.fromkeys(given))


def _affinities(task: TaskIn | TaskFast) -> tuple[Affinity, ...]:
    kinds: tuple[tuple[Literal["near", "apart"], list[str]], ...] = (("near", task.near), ("apart", task.apart))
    return tuple([_affinity(kind, g, i) for kind, given in kinds for i, g in enumerate(_few(given, kind))])


def _affinity(kind: Literal["near", "apart"], given: str, position: int) -> Affinity:
    """``db``, ``db@rack``, ``db@rack:50``."""
    match = _NEAR.match(given)
    weight = int(match[3]) if match is not None and match[3] else None
    if match is None or (weight is not None and not 1 <= weight <= MOST_WEIGHT):
        raise InvalidValue(f"{kind}.{position}", given, "KEY or KEY@LABEL, and :WEIGHT from 1 to 100 for a wish")
    return Affinity(kind, match[1], match[2] or "", weight or 0)


def _preferences(given: list[str]) -> tuple[Preference, ...]:
    """``zone=a`` or ``zone=a:50``."""
    found = []
    for i, wish in enumerate(_few(given, "prefer")):
        body, colon, last = wish.rpartition(":")
        weighed = bool(colon) and last.isascii() and last.isdigit() and len(last) <= 3
        weight = int(last) if weighed else MOST_WEIGHT
        if not 1 <= weight <= MOST_WEIGHT:
            raise InvalidValue(f"prefer.{i}", wish, "a weight from 1 to 100 behind ':'")
        c = _constraint(body if weighed else wish, i, "prefer")
        found.append(Preference(c.label, c.op, c.value, weight))
    return tuple(found)


def _constraint(given: str, position: int, of: str = "constraints") -> Constraint:
    field = f"{of}.{position}"
    match = _CONSTRAINT.match(word(given, field, 310))
    if match is None:
        raise InvalidValue(field, given, "label=value, label!=value or label")
    label, op, value = match.groups()
    if op is None:
        return Constraint(label, "exists")
    return Constraint(label, "=" if op == "=" else "!=", value)


def _licenses(given: Mapping[str, int]) -> dict[str, int]:
    if len(given) > 100:
        raise InvalidValue("licenses", len(given), "at most 100 kinds")
    for name, count in given.items():
        if not _LICENSE.match(name):
            raise InvalidValue("licenses", name, "a name of small letters, digits, '_', '.' and '-'")
        if not 1 <= count <= 1_000_000:
            raise InvalidValue(f"licenses.{name}", count, "a whole number from 1 to 1,000,000")
    return dict(given)


def _env(given: Mapping[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not _ENV_NAME.match(name):
            raise InvalidValue("env", name, "a name of letters, digits and '_'")
        text(value, f"env.{name}")
    return dict(given)


def _retry(given: RetryIn | RetryFast) -> RetryPolicy:
    if given == type(given)():
        return _ONCE
    for field in ("retryable_errors", "non_retryable_errors"):
        for i, name in enumerate(_few(getattr(given, field), f"retry.{field}")):
            if name not in _CLASSES and not _CLASS.fullmatch(name):
                raise InvalidValue(f"retry.{field}.{i}", name, "any, a cause, exit:N, signal:N or exception:Name")
    return RetryPolicy(
        max_attempts=given.max_attempts,
        backoff=given.backoff_strategy,
        base=duration(given.backoff_base, "retry.backoff_base"),
        max_backoff=duration(given.max_backoff, "retry.max_backoff"),
        retry_on=tuple(given.retryable_errors),
        never_on=tuple(given.non_retryable_errors),
    )


def _function(given: FunctionIn | FunctionFast) -> FunctionCall:
    args = None
    if given.args is not None:
        try:
            args = base64.b64decode(given.args, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidValue("function.args", given.args, "base64") from None
        if len(args) > INLINE_LIMIT:
            raise InvalidValue("function.args", len(args), f"at most {INLINE_LIMIT} bytes; put more into /blobs")
    return FunctionCall(
        code=digest(given.code, "function.code"),
        python=word(given.python, "function.python", 40),
        args=args,
        args_digest=None if given.args_digest is None else digest(given.args_digest, "function.args_digest"),
        environment=word(given.environment, "function.environment") if given.environment else "",
        fresh=given.fresh,
        max_calls=given.max_calls,
        inputs={name: StepInput(template) for name, template in given.inputs.items()},
    )


def _container(task: TaskIn | TaskFast, image: str) -> Container:
    mounts = []
    for i, mount in enumerate(_few(task.mounts, "mounts")):
        source, _, rest = text(mount, f"mounts.{i}").partition(":")
        target, _, mode = rest.partition(":")
        if not source.startswith("/") or not target.startswith("/") or mode not in ("", "ro", "rw"):
            raise InvalidValue(f"mounts.{i}", mount, "/source:/target or /source:/target:ro")
        mounts.append((source, target, mode == "ro"))
    network = word(task.network, "network", 100)
    if ":" in network:
        raise InvalidValue("network", network, "none, bridge, host or the name of a network")
    entrypoint = None
    if task.entrypoint:
        entrypoint = tuple([text(part, f"entrypoint.{i}") for i, part in enumerate(task.entrypoint)])
    user = None if task.container_user is None else word(task.container_user, "container_user", 100)
    return Container(word(image, "image", 500), task.pull, tuple(mounts), network, entrypoint, user)
