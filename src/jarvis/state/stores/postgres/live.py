"""What belongs to tasks that live: their elements and current attempts, over a pool or within a transaction."""

from collections.abc import Sequence
from typing import Any, Protocol

from jarvis.core.attempt import Attempt
from jarvis.core.states import ON_NODE, TERMINAL
from jarvis.core.task import Element
from jarvis.state.persistence import attempt_from_row, element_from_row, in_order, solo_from_row
from jarvis.state.stores.postgres.schema import Q

_END = sorted(str(state) for state in TERMINAL)
_NODE = sorted(str(state) for state in ON_NODE)
LIVE = " WHERE n.id > $1 AND n.ended_at IS NULL ORDER BY n.id LIMIT $2"
_OF_ROWS = (
    " e WHERE task = ANY($1::bigint[]) AND NOT state = ANY($2::text[])"
    " AND (idx >= 0 OR NOT EXISTS (SELECT 1 FROM task_now t WHERE t.id = e.task AND t.element IS NOT NULL))"
)
_SOLO = " AND id = ANY($1::bigint[]) AND NOT state = ANY($2::text[])"
_OF_ARRAYS = (
    " JOIN element e ON a.task = e.task AND a.idx = e.idx AND a.attempt = e.attempt"
    " WHERE e.task = ANY($1::bigint[]) AND e.idx >= 0 AND e.state = ANY($2::text[]) UNION ALL "
)
_OF_SOLO = (
    " JOIN task_now t ON a.task = t.id AND a.idx = -1 WHERE t.id = ANY($1::bigint[]) AND t.state = ANY($2::text[])"
    " AND a.attempt = (SELECT max(b.attempt) FROM attempt b WHERE b.task = t.id AND b.idx = -1) ORDER BY 1, 2"
)


class Asked(Protocol):
    """A pool or a connection."""

    async def fetch(self, query: str, *args: object) -> list[Any]: ...


async def live_elements(c: Asked, tasks: Sequence[int]) -> list[Element]:
    """See ``element_list_live`` of the port."""
    found = [element_from_row(row) for row in await c.fetch(Q["element_columns"] + _OF_ROWS, list(tasks), _END)]
    solo = [solo_from_row(row) for row in await c.fetch(Q["solo_columns"] + _SOLO, list(tasks), _END)]
    return in_order(found + solo)


async def current_attempts(c: Asked, tasks: Sequence[int]) -> list[Attempt]:
    """See ``attempt_list_current`` of the port."""
    text = Q["attempt_columns"] + _OF_ARRAYS + Q["attempt_columns"] + _OF_SOLO
    return [attempt_from_row(row) for row in await c.fetch(text, list(tasks), _NODE)]
