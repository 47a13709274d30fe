"""After the death of an earlier supervisor of this directory: end what it left running, and remember what it knew."""

from __future__ import annotations

import os
import time

from .attempts import ENDED, Attempt, lost_report
from .journal import Journal, Past, end_record, life
from .processes import Table, kill_exactly
from .protocol import encode
from .system import boot_id, log, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cgroups import Pool

# Process start times come in ticks of 10 ms, and a spawn takes a moment.
START_TOLERANCE = 1.0
GIVE_UP_AFTER = 5.0


def recover(past: Past, journal: Journal, pool: Pool | None) -> dict[int, Attempt]:
    """Kill what is left (in the same boot), turn every attempt without an end into `supervisor_lost`, or `node_lost`
    when it was of another boot."""
    same_boot = past.boot == boot_id()
    if same_boot or not past.boot:
        _kill_leftovers(past, pool)
    attempts = {number: _revive(record, same_boot) for number, record in sorted(past.attempts.items())}
    journal.rewrite(_records(past, attempts))
    return attempts


def new_identity() -> str:
    """A name for the state directory, for marks and groups."""
    return os.urandom(6).hex()


def _revive(record: dict[str, object], same_boot: bool) -> Attempt:
    number, tag, began = record["n"], record["tag"], record.get("at")
    assert isinstance(number, int)
    assert isinstance(tag, str)
    attempt = Attempt(number, tag)
    known = same_boot and isinstance(began, (int, float))
    if known:
        attempt.began = float(began)  # type: ignore[arg-type]
    end = record.get("end")
    cause = "supervisor_lost" if same_boot else "node_lost"
    wall = round(now() - attempt.began, 3) if known else None
    attempt.end = encode(end) if isinstance(end, dict) else lost_report(wall, cause)
    attempt.state = ENDED
    return attempt


def _records(past: Past, attempts: dict[int, Attempt]) -> list[dict[str, object] | str]:
    records: list[dict[str, object] | str] = [life(past.life, past.acked)]
    for attempt in attempts.values():
        records.append({"t": "start", "n": attempt.number, "tag": attempt.tag, "at": attempt.began})
        assert attempt.end is not None  # all of an earlier supervisor are over
        records.append(end_record(attempt.number, attempt.end))
    return records


def _kill_leftovers(past: Past, pool: Pool | None) -> None:
    """Kill until a scan finds nothing, for a bounded time: a process in the kernel's hands may need longer."""
    deadline = now() + GIVE_UP_AFTER
    slots = pool.leftovers() if pool else []
    while True:
        table = Table()
        found = _leftovers(past, table)
        for pid in found:
            kill_exactly(table.all[pid])
        members = [slot for slot in slots if slot.members()]
        for slot in members:
            slot.kill()
        if not found and not members:
            break
        if now() > deadline:
            log(f"could not end {sorted(found)} of an earlier supervisor")
            break
        time.sleep(0.01)
    for slot in slots:
        slot.remove()


def _leftovers(past: Past, table: Table) -> set[int]:
    roots = set(table.marked(f"{past.life}.")) if past.life else set()
    for record in past.attempts.values():
        pid, began = record.get("pid"), record.get("at", 0.0)
        process = table.all.get(pid) if pid and "end" not in record else None
        if process is not None and abs(process.start - began) < START_TOLERANCE:
            roots |= {process.pid} | table.session(process.pid)
    spared = _ancestors(table)
    return {pid for pid in table.descendants(roots - spared) if table.all[pid].alive} - spared


def _ancestors(table: Table) -> set[int]:
    """We and those who started us, who may be a task's or the old agent's process."""
    found: set[int] = set()
    pid = os.getpid()
    while pid in table.all and pid not in found:
        found.add(pid)
        pid = table.all[pid].parent
    return found
