"""From bodies to submissions: one task, thousands at once, or an ended one again."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec

from jarvis.api.alike import Alike, Same, alike
from jarvis.api.auth import authorise
from jarvis.api.problems import Refusal, problem_of
from jarvis.api.schemas.task_in import BatchFast, Calls, TaskFast, TaskIn
from jarvis.api.schemas.task_rules import to_spec
from jarvis.api.schemas.values import word
from jarvis.api.services import Services
from jarvis.core.errors import Conflict, InvalidValue, JarvisError
from jarvis.core.permissions import ANY_PROJECT, Principal, allowed
from jarvis.core.states import TERMINAL, State
from jarvis.core.task import INLINE_LIMIT, ArraySpec, FunctionCall, NewTask, Task, TaskSpec
from jarvis.scheduler.task_queue import PlacementClass, class_of
from jarvis.state.store import Accepted, IdempotencyKey, Submission

MAX_BATCH = 10_000
MAX_TASK = 4 * INLINE_LIMIT
AT_ONCE = 500
"""Members that are read between two looks at everything else."""
PAGE = 10_000
SHORT = 4096
"""Bytes of what calls have in common, up to which it is remembered."""
TEMPLATES_MOST = 256
_Member = tuple[int, NewTask]
"""With its place in the batch."""
_FAILED = frozenset(TERMINAL - {State.SUCCEEDED, State.SKIPPED})
_HALF = (1 << 47) - 1
"""The end of the first of many ids is below this, so that none of them comes round."""
_batch_decoder = msgspec.json.Decoder(BatchFast)
_task_decoder = msgspec.json.Decoder(TaskFast)
_calls_decoder = msgspec.msgpack.Decoder(Calls)


def uuid7s(now: float, count: int) -> list[str]:
    """Ids that sort by time: a random one and those that follow it (RFC 9562, 6.2, "monotonic random")."""
    stamp, drawn = f"{int(now * 1000):012x}", os.urandom(10)
    a, b, c = int.from_bytes(drawn[:2]) & 0xFFF, int.from_bytes(drawn[2:4]) & 0x3FFF | 0x8000, drawn[4:]
    begin, first = f"{stamp[:8]}-{stamp[8:]}-7{a:03x}-{b:04x}-", int.from_bytes(c) & _HALF
    return [f"{begin}{last:012x}" for last in range(first, first + count)]


class Submitter:
    """Checks and inserts for one principal."""

    def __init__(self, services: Services, principal: Principal) -> None:
        self.services, self.principal = services, principal
        self._now = services.clock.now()
        self._may: set[str] = set()
        self._fit: set[PlacementClass] = set()
        self._looked = False
        self._more: dict[tuple[str, str], int] = {}
        """Owner → tasks of this request so far."""
        self._over: dict[str, JarvisError] = {}
        """Tasks, by uuid, for which their owner has no room, unless this request was accepted before."""
        self._before: tuple[Alike | Same, NewTask] | None = None
        """The last task of a batch that was read in full, and how to know others like it."""
        own = [p for p in principal.projects if p != ANY_PROJECT]
        self._default = own[0] if own else services.settings.default_project

    async def new_task(self, task: TaskIn | TaskFast, spec: TaskSpec | None = None) -> NewTask:
        """A task by the rules; raises for what cannot be meant, is not allowed or never fits. ``spec``: if it is known."""
        project = self._default if task.project is None else task.project
        if project not in self._may:
            authorise(self.principal, "submit", word(project, "project", 100))
            self._may.add(project)
        spec = spec or to_spec(task, self._now)
        if spec.function is not None and spec.function.inputs:
            raise InvalidValue("function.inputs", "inputs", "given to a step of a workflow, not to a task by itself")
        refuse_templates(spec)
        await self._check_fits(spec)
        return self._within(project, spec)

    def _within(self, project: str, spec: TaskSpec) -> NewTask:
        """The task; one too many is told by ``_over``."""
        new = self._new(project, [spec])[0]
        if (error := self._count(project, new.user, spec)) is not None:
            self._over[new.uuid] = error
        return new

    def _count(self, project: str, user: str, spec: TaskSpec, tasks: int = 1) -> JarvisError | None:
        """So many more, unless that is more than their owner may have."""
        more = self._more.get((project, user), 0) + tasks
        error = self.services.quota_allows(project, user, spec, more - 1)  # the last, and so those before
        if error is None:
            self._more[project, user] = more
        return error

    async def _refuse_over(self, tasks: Sequence[NewTask], key: IdempotencyKey | None) -> None:
        """Raises unless there is room for all: for what was accepted under this key before, there is."""
        error = next((self._over[new.uuid] for new in tasks if new.uuid in self._over), None)
        if error is not None and not await self._was_accepted(key):
            raise error

    async def _was_accepted(self, key: IdempotencyKey | None) -> bool:
        """Asked only when something is in the way, so that a first request costs no look."""
        return key is not None and await self.services.store.idempotency_get(key) is not None

    def _new(self, project: str, specs: Sequence[TaskSpec]) -> list[NewTask]:
        user = self.principal.user
        ids = uuid7s(self._now, len(specs))
        return [
            NewTask(uuid=uuid, project=project, user=user, spec=spec) for uuid, spec in zip(ids, specs, strict=True)
        ]

    def own_project(self, project: str = "") -> str:
        """The project that is meant, as far as the asker may read it."""
        project = word(project, "project", 100) if project else self._default
        authorise(self.principal, "read", project)
        return project

    def as_asked(self, data: bytes) -> tuple[str, TaskSpec]:
        """Project and spec of a task that is only asked about: by the rules of a submission, whether it fits or not."""
        if len(data) > MAX_TASK:
            raise _too_big(len(data))
        task = TaskIn.model_validate_json(data or b"{}")
        project = self._default if task.project is None else task.project
        authorise(self.principal, "submit", word(project, "project", 100))
        spec = to_spec(task, self._now)
        if (error := self.services.queue_refused(spec.queue)) is not None:
            raise error
        return project, spec

    async def _check_fits(self, spec: TaskSpec) -> None:
        """Raises for what never fits or names no queue; asked once a request for each placement class."""
        shape = class_of(spec)
        if shape in self._fit:
            return
        error = self.services.refused(spec)
        if error is not None and not self._looked:  # once a request: a standby may not know who has just joined
            self._looked = True
            await self.services.look_for_nodes()
            error = self.services.refused(spec)
        if error is not None:
            raise error
        self._fit.add(shape)

    async def one(self, data: bytes, key: str | None) -> tuple[NewTask, Accepted]:
        if len(data) > MAX_TASK:
            raise _too_big(len(data))
        new = await self.new_task(TaskIn.model_validate_json(data or b"{}"))
        if hidden := await self.hidden([new]):
            raise _no_dependency(min(hidden))
        keyed = self._key("POST /tasks", key, data, new.project)
        await self._refuse_over([new], keyed)
        return new, await self.insert([new], keyed)

    async def insert(self, tasks: Sequence[NewTask], key: IdempotencyKey | None) -> Accepted:
        answer = (await self.services.state_manager.submit([Submission(tasks, key)]))[0]
        if isinstance(answer, JarvisError):
            raise answer
        return answer

    async def hidden(self, tasks: Sequence[NewTask]) -> frozenset[int]:
        """Ids that these depend on and the principal may not read: to it they do not exist."""
        named = {d.task for task in tasks for d in task.spec.after}
        found = await self.services.store.task_get_many(sorted(named)) if named else []
        return frozenset(task.id for task in found if not allowed(self.principal, "read", task.project))

    def _key(self, route: str, key: str | None, data: bytes, project: str | None = None) -> IdempotencyKey | None:
        if key is None:
            return None
        hashed = hashlib.sha256(data).hexdigest()
        return IdempotencyKey(self.principal.user, project or self._default, route, key, hashed)

    async def again(self, task: Task, index: int, key: str | None) -> tuple[NewTask, Accepted]:
        """An ended task as a new one: of an array, the elements that failed."""
        if index < 0 and task.state not in TERMINAL:
            raise Conflict(f"task {task.id} is {task.state}", "retry what has ended; see requeue for what runs")
        spec = task.spec
        if spec.array is not None:
            indices = [index] if index >= 0 else await self._failed(task)
            if not indices:
                raise Conflict(f"no element of task {task.id} has failed")
            spec = msgspec.structs.replace(
                spec, array=ArraySpec(tuple(_ranges(indices)), spec.array.throttle, spec.array.entries)
            )
        if spec.deadline is not None and spec.deadline <= self._now:
            spec = msgspec.structs.replace(spec, deadline=None)
        spec = msgspec.structs.replace(spec, after=(), begin=None, hold=False)
        await self._check_fits(spec)
        new = NewTask(uuid=uuid7s(self._now, 1)[0], project=task.project, user=task.user, spec=spec, retry_of=task.id)
        keyed = self._key("POST /tasks/retry", key, f"{task.id}_{index}".encode(), task.project)
        if (error := self._count(new.project, new.user, spec)) is not None:
            self._over[new.uuid] = error
        await self._refuse_over([new], keyed)
        return new, await self.insert([new], keyed)

    async def _failed(self, task: Task) -> list[int]:
        """Indices that failed; those without a row of their own ended as the task's base says."""
        states: dict[int, State] = {}
        after = -1
        while page := await self.services.store.element_list(task.id, frozenset(), after, PAGE):
            states |= {element.index: element.state for element in page}
            after = page[-1].index
        if task.base in _FAILED:
            for position in range(task.next_position, task.size):
                states.setdefault(task.key_at(position).index, task.base)
        return sorted(index for index, state in states.items() if state in _FAILED)

    # ------------------------------------------------------------ batches

    async def batch(self, data: bytes, key: str | None) -> dict[str, Any]:
        """Each member gets an id or a problem; with ``atomic`` all get ids or none."""
        try:
            batch = _batch_decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _unreadable(error) from None
        if not 0 < len(batch.tasks) <= MAX_BATCH:
            raise InvalidValue("tasks", len(batch.tasks), f"1 to {MAX_BATCH:,} tasks")
        read = await self._members(list(map(bytes, batch.tasks)))
        good = [(i, new) for i, new in enumerate(read) if isinstance(new, NewTask)]
        results: list[dict[str, Any]] = [{}] * len(read)
        for i, new in enumerate(read) if len(good) < len(read) else ():
            if isinstance(new, JarvisError):
                results[i] = {"problem": problem_of(new)}
        if hidden := await self.hidden([new for _, new in good]):
            for i, new in good:
                if wrong := hidden & {d.task for d in new.spec.after}:
                    results[i] = {"problem": problem_of(_no_dependency(min(wrong)))}
            good = [(i, new) for i, new in good if not results[i]]
        if self._over:
            good = await self._with_room(good, results, batch.atomic, key, data)
        if batch.atomic and len(good) < len(batch.tasks):
            refused = [{"index": i, **r} for i, r in enumerate(results) if r]
            return {"accepted": 0, "refused": len(batch.tasks), "atomic": True, "results": results, "problems": refused}
        await self._insert_members(good, results, batch.atomic, key, data)
        accepted = sum("id" in r for r in results)
        return {"accepted": accepted, "refused": len(results) - accepted, "atomic": batch.atomic, "results": results}

    async def calls(self, data: bytes, key: str | None) -> Accepted:
        """Many calls of one function, which are checked as one task and accepted or refused together."""
        try:
            calls = _calls_decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Refusal(400, "bad_msgpack", str(error)) from None
        if not 0 < len(calls.args) <= MAX_BATCH:
            raise InvalidValue("args", len(calls.args), f"the arguments of 1 to {MAX_BATCH:,} calls")
        if (longest := max(map(len, calls.args))) > INLINE_LIMIT:
            raise InvalidValue("args", longest, f"at most {INLINE_LIMIT} bytes; put more into /blobs")
        like = await self._like(bytes(calls.task))
        call = like.spec.function
        if call is None or call.args is not None or call.args_digest is not None or like.spec.array is not None:
            raise InvalidValue("task", "another task", "a function without arguments of its own")
        if hidden := await self.hidden([like]):
            raise _no_dependency(min(hidden))
        keyed = self._key("POST /tasks/calls", key, data, like.project)
        if len(calls.args) > 1 and (over := self._count(like.project, like.user, like.spec, len(calls.args) - 1)):
            self._over[like.uuid] = over
        await self._refuse_over([like], keyed)
        return await self.insert(await self._calls_like(like, call, calls.args), keyed)

    async def _calls_like(self, like: NewTask, call: FunctionCall, given: Sequence[bytes]) -> list[NewTask]:
        """One for each of the arguments."""
        replace, tasks = msgspec.structs.replace, list[NewTask]()
        for begin in range(0, len(given), AT_ONCE):
            if begin:
                await asyncio.sleep(0)  # many calls must not hold up heartbeats
            some = given[begin : begin + AT_ONCE]
            tasks += self._new(like.project, [replace(like.spec, function=replace(call, args=args)) for args in some])
        return tasks

    async def _like(self, body: bytes) -> NewTask:
        """What many calls have in common."""
        if len(body) > SHORT:
            return await self._member(body)
        try:
            return await self.new_task(*_template(body))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _unreadable(error) from None

    async def _members(self, bodies: list[bytes]) -> list[NewTask | JarvisError]:
        """What each is read as, or why it is refused."""
        out: list[NewTask | JarvisError] = []
        while len(out) < len(bodies):
            at = len(out)
            if at:
                out += self._resembling(bodies, at, at + AT_ONCE - at % AT_ONCE)
            if len(out) % AT_ONCE == 0 and at:
                await asyncio.sleep(0)  # a large batch must not hold up heartbeats
            if len(out) == at:
                try:
                    out.append(await self._member(bodies[at]))
                except JarvisError as error:
                    out.append(error)
        return out

    def _resembling(self, bodies: list[bytes], begin: int, end: int) -> Sequence[NewTask | JarvisError]:
        """Members that differ from the last one that was read in full in their command, or in nothing: as many as come in a row."""
        if self._before is None:
            return []
        before, (project, user) = self._before[0], (self._before[1].project, self._before[1].user)
        specs = before.read(bodies, begin, end, MAX_TASK)
        if not specs:
            return []
        if self._count(project, user, specs[-1], len(specs)) is None:
            return self._new(project, specs)
        return [self._within(project, spec) for spec in specs]

    async def _member(self, body: bytes) -> NewTask:
        if len(body) > MAX_TASK:
            raise _too_big(len(body))
        try:
            task = _task_decoder.decode(body)
            new = await self.new_task(task)
            found = alike(body, task, new.spec, _task_decoder.decode)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _unreadable(error) from None
        self._before = (found, new)
        return new

    def _batch_key(self, group: int, key: str | None, data: bytes) -> IdempotencyKey | None:
        return self._key("POST /tasks/batch", key and (key if group < 0 else f"{key}#{group}"), data)

    async def _with_room(
        self, good: list[_Member], results: list[dict[str, Any]], atomic: bool, key: str | None, data: bytes
    ) -> list[_Member]:
        """Without those of which there would be too many; for what was accepted under this key before, there is room."""
        kept: list[_Member] = []
        for group, members in _groups(good, atomic).items():
            over = [(i, self._over[new.uuid]) for i, new in members if new.uuid in self._over]
            if over and not await self._was_accepted(self._batch_key(group, key, data)):
                for i, error in over:
                    results[i] = {"problem": problem_of(error)}
            kept += [(i, new) for i, new in members if not results[i]]
        return sorted(kept, key=itemgetter(0))

    async def _accepted_of(
        self, members: list[_Member], ids: Sequence[int], results: list[dict[str, Any]]
    ) -> list[_Member]:
        """Those that were accepted when this batch came first, told by what was stored."""
        found = {task.id: task for task in await self.services.store.task_get_many(list(ids))}
        stored = iter([found[ident] for ident in ids if ident in found])
        wanted, accepted = next(stored, None), []
        refused = Conflict("it was refused when this batch came first", "submit it under a new Idempotency-Key")
        for i, new in members:
            if wanted is not None and (wanted.project, wanted.spec) == (new.project, new.spec):
                accepted.append((i, new))
                wanted = next(stored, None)
            else:
                results[i] = {"problem": problem_of(self._over.get(new.uuid, refused))}
        if len(accepted) != len(ids):
            raise Conflict("the same batch was accepted when other nodes were known", "use a new Idempotency-Key")
        return accepted

    async def _insert_members(
        self, good: list[_Member], results: list[dict[str, Any]], atomic: bool, key: str | None, data: bytes
    ) -> None:
        """Members that name others can be refused by the store's knowledge, so each of them stands alone."""
        groups = _groups(good, atomic)
        submissions = [
            Submission([new for _, new in members], self._batch_key(group, key, data))
            for group, members in groups.items()
        ]
        answers = await self.services.state_manager.submit(submissions) if submissions else []
        for members, told in zip(groups.values(), answers, strict=True):
            if atomic and isinstance(told, JarvisError):
                raise told
            if isinstance(told, Accepted) and len(told.ids) != len(members):
                members[:] = await self._accepted_of(members, told.ids, results)
            said: list[dict[str, Any]]
            if isinstance(told, JarvisError):
                said = [{"problem": problem_of(told)} for _ in members]
            elif told.replayed:
                said = [{"id": ident, "replayed": True} for ident in told.ids]
            else:
                given = zip(told.ids, members, strict=True)
                said = [{"id": ident, "uuid": new.uuid} for ident, (_, new) in given]
            for (i, _), result in zip(members, said, strict=True):
                results[i] = result


@lru_cache(TEMPLATES_MOST)
def _template(body: bytes) -> tuple[TaskFast, TaskSpec | None]:
    """A client says the same of one call after another; no spec where an instant of it depends on when it is said."""
    task = _task_decoder.decode(body)
    return task, to_spec(task, 0.0) if task.begin is None and task.deadline is None else None


def _groups(good: list[_Member], atomic: bool) -> dict[int, list[_Member]]:
    """What is accepted or refused together, by the place of the one member or, of all that name no others, -1."""
    if atomic or not any(new.spec.after for _, new in good):
        return {-1: good} if good else {}
    groups: dict[int, list[_Member]] = {}
    for i, new in good:
        groups.setdefault(i if new.spec.after else -1, []).append((i, new))
    return groups


def refuse_templates(spec: TaskSpec) -> None:
    """What only a step of a workflow may say of its files."""
    for i, pushed in enumerate(spec.push):
        if "${{" in pushed:
            raise InvalidValue(f"push.{i}", pushed, "a digest: only steps of a workflow read from others")


def _ranges(indices: list[int]) -> list[tuple[int, int, int]]:
    """Ascending indices as inclusive ranges."""
    out: list[tuple[int, int, int]] = []
    for index in indices:
        if out and out[-1][1] == index - 1:
            out[-1] = (out[-1][0], index, 1)
        else:
            out.append((index, index, 1))
    return out


def _no_dependency(ident: int) -> InvalidValue:
    return InvalidValue("after", ident, "the id of an existing task")


def _too_big(size: int) -> Refusal:
    return Refusal(413, "too_large", f"the task takes {size} bytes of at most {MAX_TASK}", "put data into /blobs")


def _unreadable(error: Exception) -> JarvisError:
    """Not JSON at all, or JSON of another shape: msgspec tells the path after ``- at `$.``."""
    message = str(error)
    if isinstance(error, msgspec.ValidationError):
        said, _, path = message.partition(" - at `$")
        return _Shape(path.rstrip("`").lstrip("."), said)
    return Refusal(400, "bad_json", f"the body is not JSON: {message}", "send valid UTF-8 JSON")


class _Shape(InvalidValue):
    """A value of another type than the field takes."""

    def __init__(self, field: str, message: str) -> None:
        JarvisError.__init__(self, f"{field}: {message}" if field else message)
        self.field, self.value, self.hint = field, None, "see /openapi.json for the fields"
