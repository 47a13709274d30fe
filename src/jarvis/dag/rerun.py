"""PURE: what a re-run takes over: everything that went well and does not follow from something that runs again."""

from collections.abc import Collection, Iterator, Mapping

import msgspec

from jarvis.core.states import State
from jarvis.core.workflow import FAILURES, Block, Step, StepSpec, Workflow
from jarvis.dag.resolver import dependents


def kept(workflow: Workflow, rows: Mapping[str, Step], again: Collection[str] = ()) -> tuple[Step, ...]:
    """Rows for a re-run of a workflow that has ended. ``again``: outermost steps that run again though they went well."""
    children: dict[str, list[str]] = {}
    for path in rows:
        if path.endswith("]"):
            children.setdefault(path[: path.rindex("[")], []).append(path)
    found = _Kept(rows, children, workflow.id)
    return tuple(found.of_block(workflow.spec.block, "", frozenset(again)))


class _Kept:
    def __init__(self, rows: Mapping[str, Step], children: Mapping[str, list[str]], source: int) -> None:
        self._rows, self._children, self._source = rows, children, source

    def of_block(self, block: Block, prefix: str, again: frozenset[str] = frozenset()) -> Iterator[Step]:
        """Of its steps alone: handlers always run again."""
        steps = {step.id: step for step in block.steps}
        fresh = {ident for ident in steps if ident in again or not self._went_well(prefix + ident)}
        behind, after, open_ones = (
            dependents(block.steps),
            set(again),
            [i for i in fresh if not self._skipped(prefix + i)],
        )
        while open_ones:
            for other, _ in behind[open_ones.pop()]:
                if other not in after:
                    after.add(other)
                    open_ones.append(other)
        for ident, step in steps.items():
            if ident in after:
                continue
            if ident not in fresh:
                yield self._taken(prefix + ident)
            elif self._failed(prefix + ident):
                yield from self._within(step, prefix + ident)

    def _within(self, step: StepSpec, path: str) -> Iterator[Step]:
        """What went well inside a step that did not."""
        if step.for_each is not None or step.loop is not None:
            for child in self._children.get(path, ()):
                if self._went_well(child):
                    yield self._taken(child)
                else:
                    yield from self._blocks(step, child)
        else:
            yield from self._blocks(step, path)

    def _blocks(self, step: StepSpec, path: str) -> Iterator[Step]:
        for label, block in step.blocks:
            if not block.race:
                yield from self.of_block(block, f"{path}/{label}")

    def _went_well(self, path: str) -> bool:
        return path in self._rows and self._rows[path].state is State.SUCCEEDED

    def _skipped(self, path: str) -> bool:
        """It is asked again, and when nothing before it runs again the answer is the same."""
        return path in self._rows and self._rows[path].state is State.SKIPPED

    def _failed(self, path: str) -> bool:
        return path in self._rows and self._rows[path].state in FAILURES

    def _taken(self, path: str) -> Step:
        row = self._rows[path]
        reused = row.detail.reused if row.detail.reused is not None else self._source
        return msgspec.structs.replace(row, detail=msgspec.structs.replace(row.detail, reused=reused))
