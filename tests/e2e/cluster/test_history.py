"""What a cluster ran, taken from it as a workload and replayed."""

import json

import pytest
from tests.e2e.cluster.harness import Home

from jarvis.sdk.errors import ClientError


def test_the_last_week_is_replayed_and_kept(up: Home) -> None:
    alone = up.jarvis("submit", "-q", "-c", "2", "-t", "1:00", "-n", "alone", "sleep", "0.4").stdout.strip()
    array = up.jarvis("submit", "-q", "-a", "0-4", "-n", "many", "sleep", "0.2").stdout.strip()
    after = up.jarvis("submit", "-q", "--after", f"afterany:{alone}", "-n", "after", "sleep", "0.2").stdout.strip()
    failing = up.jarvis("submit", "-q", "--retries", "1", "-n", "again", "sh", "-c", "sleep 0.2; exit 3").stdout.strip()
    never = up.jarvis("submit", "-q", "--hold", "true").stdout.strip()
    up.jarvis("wait", alone, array, after, failing, code=None)
    up.jarvis("cancel", never)
    kept = up.directory.parent / "week.jsonl"
    told = json.loads(up.jarvis("sim", "--trace", "last-week", "--save", str(kept), "-o", "json").stdout)
    assert told["mean"]["tasks"] >= 8
    rows = {(row["task"], row["index"]): row for row in map(json.loads, kept.read_text("utf-8").splitlines()[1:])}
    assert {(int(array), at) for at in range(5)} <= rows.keys()
    assert (int(never), None) not in rows
    one = rows[int(alone), None]
    assert (one["name"], one["limit_s"], one["resources"]["cpu"]) == ("alone", 60, 2000)
    assert (one["nodes"], one["attempts"]) == (1, 1)
    assert 0.4 <= one["ran_s"] < 10
    assert rows[int(after), None]["submitted_at"] >= one["submitted_at"] + one["ran_s"], (
        "it came when what it waited for was over"
    )
    assert rows[int(failing), None]["attempts"] == 2
    assert rows[int(failing), None]["ran_s"] >= 0.4, "both attempts"
    again = json.loads(up.jarvis("sim", "--trace", str(kept), "-o", "json").stdout)
    assert again == told, "what is kept is what was replayed"


def test_pages_go_through_the_middle_of_an_array(up: Home) -> None:
    ident = up.jarvis("submit", "-q", "-a", "0-6", "-n", "paged", "true").stdout.strip()
    up.jarvis("wait", ident)
    found: list[tuple[int, int | None]] = []
    cursor: str | None = ""
    with up.client() as client:
        while cursor is not None:
            page = client.connection.get("/history", submitted_after="0", limit="3", cursor=cursor)
            assert len(page["items"]) <= 3
            found += [(row["task"], row["index"]) for row in page["items"]]
            cursor = page["next"]
    assert [at for at in found if at[0] == int(ident)] == [(int(ident), at) for at in range(7)]
    assert len(found) == len(set(found)), "nothing comes twice"


def test_times_and_cursors_that_cannot_be_meant(up: Home) -> None:
    up.jarvis("wait", up.jarvis("submit", "-q", "true").stdout.strip())
    assert "that can be written" in up.jarvis("sim", "--trace", "last-1h", "--save", "/nowhere/x", code=None).stderr
    with up.client() as client:
        for after, cursor in (("monday", ""), ("0", "x"), (None, "")):
            with pytest.raises(ClientError):
                client.connection.get("/history", submitted_after=after, cursor=cursor)
