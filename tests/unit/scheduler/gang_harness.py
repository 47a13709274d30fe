"""A cluster whose nodes can hold ranks: what happens to single ranks, and a leader that knows the rows alone."""

from tests.unit.scheduler.harness import Case

from jarvis.core.attempt import Usage
from jarvis.core.effects import ToNode
from jarvis.core.inputs import Ended, Returned, Started
from jarvis.core.states import Cause
from jarvis.core.task import ADDRESS_LABEL
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.reactor import adopt, rebuild_attempts, rebuild_tasks


class Gangs(Case):
    """A cluster whose nodes can hold ranks."""

    def nodes(self, count: int, cpus: float = 4) -> list[int]:
        return [self.able(cpus) for _ in range(count)]

    def able(self, cpus: float = 4, **more: object) -> int:
        name = f"n{len(self.cluster.nodes) + 1}"
        return self.node(name, cpus=cpus, labels={ADDRESS_LABEL: f"10.0.0.{name[1:]}"}, **more)  # type: ignore[arg-type]

    def rank_started(self, task: int, rank: int) -> None:
        attempt = self.attempt(task)
        at = attempt.ranks[rank]
        self._report(at.node, Started(number=at.number, token=attempt.token))

    def all_start(self, task: int) -> None:
        for rank in range(len(self.attempt(task).ranks)):
            self.rank_started(task, rank)

    def rank_ends(self, task: int, rank: int, exit_code: int | None = 0, cause: Cause = Cause.EXIT) -> None:
        attempt = self.attempt(task)
        at = attempt.ranks[rank]
        self._report(
            at.node,
            Ended(
                number=at.number, token=attempt.token, cause=cause, exit_code=exit_code, usage=Usage(wall_s=1.0 + rank)
            ),
        )

    def rank_returned(self, task: int, rank: int) -> None:
        at = self.attempt(task).ranks[rank]
        self._report(at.node, Returned(numbers=[at.number]))

    def lose(self, node: int) -> None:
        from jarvis.scheduler.nodes import on_node_lost
        from jarvis.scheduler.turn import Turn

        turn = Turn(self.cluster, self.now, "lost")
        on_node_lost(turn, self.cluster.nodes[node])
        self.effects += turn.finish()
        self.turns.append(turn)
        self.step()

    def said(self, kind: type) -> dict[int, object]:
        """Node → what it was told of that kind since the last look."""
        return {e.node: e.message for e in self.take() if isinstance(e, ToNode) and isinstance(e.message, kind)}

    def ended_attempt(self, task: int, attempt: int = 1):  # type: ignore[no-untyped-def]
        rows = [r for t in self.turns for (i, _, n), r in t.changes.attempts.items() if i == task and n == attempt]
        return rows[-1]


def successor(case: Case) -> Cluster:
    """What a leader that reads the store knows: the rows alone."""
    old = case.cluster
    cluster = Cluster(incarnation=1, epoch=2)
    cluster.last_seq, cluster.next_node, cluster.node_names = old.last_seq, old.next_node, dict(old.node_names)
    for ident, view in old.nodes.items():
        cluster.nodes[ident] = type(view)(view.node)
    for element in old.elements.values():
        cluster.add_element(element)
    cluster.attempts = dict(old.attempts)
    adopt(cluster, case.policy)
    for _ in rebuild_tasks(cluster, list(old.tasks.values())):
        pass
    rebuild_attempts(cluster)
    return cluster
