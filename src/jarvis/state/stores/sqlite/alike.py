"""Many rows in one statement.

Of ``executemany`` each row is a call from the interpreter into SQLite: that takes twice as long, and each lets go of the
interpreter and waits for it again beside a loop that is busy. One statement with many rows lets go once.
"""

import re
import sqlite3
from collections.abc import Sequence
from functools import cache

from jarvis.state.stores.sqlite.file import Q

AT_ONCE = (1000, 500, 100, 50, 10, 5, 1)
"""Rows of a statement. Each size is one that the driver keeps prepared, so there are few of them, and they are such as people's
batches have: beside a loop that never rests each statement waits for the interpreter as long as the commit takes."""
_VALUES = re.compile(r"VALUES\s*(\(.*\))\s*;?\s*\Z", re.DOTALL)
_PARAMETER = re.compile(r"\?(?!\d)")


def insert_alike(
    c: sqlite3.Connection, name: str, shared: tuple[object, ...], own: Sequence[object], width: int
) -> None:
    """Rows in order. ``shared`` are the numbered parameters of the query, the same for all rows; ``own`` the others, ``width`` of
    them for each row after another."""
    at, end = 0, len(own)
    most = c.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - len(shared)
    for rows in AT_ONCE:
        step = rows * width
        if step > most:  # 999 in libraries before 2020
            continue
        while end - at >= step:
            c.execute(statement(name, rows, len(shared)), (*shared, *own[at : at + step]))
            at += step


@cache
def statement(name: str, rows: int, shared: int) -> str:
    """The query with so many rows; parameters without a number are numbered on from the shared ones."""
    sql = Q[name]
    found = _VALUES.search(sql)
    assert found is not None, f"{name} ends in the values of a row"
    number = iter(range(shared + 1, 1 << 15))
    each = ", ".join(_PARAMETER.sub(lambda _: f"?{next(number)}", found[1]) for _ in range(rows))
    return f"{sql[: found.start()]}VALUES {each}"
