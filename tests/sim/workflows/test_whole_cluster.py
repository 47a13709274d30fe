"""Random workflows in the simulated cluster: real leader, sessions and nodes, under every fault that the simulation knows.

None gets stuck, no step is started before what it waits for has ended, none has two tasks, and every end is the reference's.
"""

import asyncio
import os
from typing import Any

import pytest
from tests.sim.workflows.documents import Documents
from tests.sim.workflows.drive import arrays_of, find, undressed, valid
from tests.sim.workflows.reference import Reference, edges_of

from jarvis.core.errors import StoreUnavailable
from jarvis.core.invariants import require
from jarvis.core.workflow import NewWorkflow, Step, Workflow
from jarvis.sim.loop import VirtualLoop
from jarvis.sim.run import plan_of
from jarvis.sim.world import PATIENCE_S, Parts, World
from jarvis.state.store import IdempotencyKey
from jarvis.state.workflow_store import WorkflowFilter

SOAK = bool(os.environ.get("JARVIS_SOAK"))
SEEDS = range(1, 301 if SOAK else 9)
WORKFLOWS = 3
pytestmark = pytest.mark.timeout(3600 if SOAK else 240)


class Plain(Documents):
    """Tasks as the simulated nodes understand them: seconds, and one exit code for every try."""

    def kind(self, depth: int, seen: list[str], inside: set[str]) -> dict[str, Any]:
        step = super().kind(depth, seen, inside)
        return plain(step, self.random.choice)

    def sub(self) -> dict[str, Any]:
        made = super().sub()
        made["steps"] = [plain(step, self.random.choice) for step in made["steps"]]
        return made


def plain(step: dict[str, Any], choice: Any) -> dict[str, Any]:
    if "command" not in step:
        return step
    expression = step["command"][1]
    command = ["run", str(choice((0.01, 0.5, 2.0))), choice(("0", "0", "0", "0", "1"))]
    return {**step, "command": command, "env": {"VALUE": expression}}


class Author:
    """A client that submits workflows and repeats itself until it is heard."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.documents: dict[int, dict[str, Any]] = {}
        self._made = [valid(Plain(1000 * seed + at, steps=10)) for at in range(WORKFLOWS)]

    async def run(self) -> None:
        for at, (document, spec) in enumerate(self._made):
            new = NewWorkflow(uuid=f"w{at}", project="p", user="ann", spec=spec)
            key = IdempotencyKey("ann", "p", "workflows", f"w{at}", "same")
            while (ident := await self._submit(new, key)) is None:  # noqa: ASYNC110 - it is asked again
                await asyncio.sleep(1.0)
            self.documents[ident] = document
            await asyncio.sleep(3.0)

    async def _submit(self, new: NewWorkflow, key: IdempotencyKey) -> int | None:
        """Its id; None when no answer came, and the key makes it safe to ask again."""
        try:
            return (await self.world.ask(lambda manager: manager.submit_workflow(new, key))).ids[0]
        except (ConnectionError, StoreUnavailable):
            return None

    async def until_all_ended(self) -> None:
        store, loop = self.world.disk.port, asyncio.get_running_loop()
        until = loop.time() + 4 * PATIENCE_S
        while True:
            await World._until_all_ended(self.world)
            live = await store.workflow_list_live(0, 100)
            if not live and len(self.documents) == WORKFLOWS:
                return
            require(loop.time() < until, f"stuck: {[(w.id, w.state) for w in live]}")
            await asyncio.sleep(5.0)

    async def judge(self) -> None:
        store = self.world.disk.port
        found = {w.id: w for w in await store.workflow_list(WorkflowFilter(), None, 1000)}
        require(
            set(found) == set(self.documents), f"{sorted(self.documents)} were acknowledged, {sorted(found)} are there"
        )
        for ident, document in self.documents.items():
            rows = {step.path: step for step in await store.step_list(ident, "", 100_000)}
            self._judge_one(found[ident], document, rows)
            await self._judge_starts(document, rows)

    def _judge_one(self, workflow: Workflow, document: dict[str, Any], rows: dict[str, Step]) -> None:
        def outcome(path: str) -> list[tuple[int, Any]]:
            code = int(find(document, undressed(path))["command"][2])
            return [(code, None)] * 10

        reference = Reference(document, outcome)
        state = reference.run()
        got = {path: str(step.state) for path, step in rows.items()}
        arrays = arrays_of(rows, reference.states)
        wanted = {p: s for p, s in reference.states.items() if not any(p.startswith(f"{a}[") for a in arrays)}
        differ = {p: (wanted.get(p), got.get(p)) for p in {*wanted, *got} if wanted.get(p) != got.get(p)}
        require(
            not differ and str(workflow.state) == state, f"workflow {workflow.id}: {state}, {workflow.state}: {differ}"
        )

    async def _judge_starts(self, document: dict[str, Any], rows: dict[str, Step]) -> None:
        """By the attempts that were made: the first of a step is after the end of everything that it waits for."""
        tasks = [step.task for step in rows.values() if step.task is not None]
        require(len(tasks) == len(set(tasks)), f"a task stands for two steps: {tasks}")
        first: dict[int, float] = {}
        for (task, _, _), attempt in self.world.judge.attempts.items():
            first[task] = min(attempt.assigned_at, first.get(task, attempt.assigned_at))
        for path, step in rows.items():
            declared = find(document, undressed(path))
            if step.task is None or step.task not in first or declared.get("trigger") == "any" or path.endswith("]"):
                continue
            prefix = path[: path.rindex("/") + 1] if "/" in path else ""
            for edge in edges_of(declared):
                ended = rows[prefix + edge["step"]].ended_at
                require(
                    ended is not None and ended <= first[step.task],
                    f"{path} is started before {edge['step']} has ended",
                )


async def live(seed: int) -> World:
    world = World(seed, plan_of(seed, 4), Parts())
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: world.fail(context.get("exception") or RuntimeError(str(context))))
    author = Author(world, seed)
    world._until_all_ended = author.until_all_ended  # type: ignore[method-assign]
    before = world._judge_the_end

    async def judge_the_end() -> None:
        await before()
        await author.judge()

    world._judge_the_end = judge_the_end  # type: ignore[method-assign]
    world.spawn(author.run())
    await world.run()
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_workflows_in_a_cluster_full_of_faults(seed: int) -> None:
    loop = VirtualLoop()
    try:
        world = loop.run_until_complete(live(seed))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert world.faults.acted or world.plan.calm
