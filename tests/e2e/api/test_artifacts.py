"""Artifacts by the API: who may see them, whole and in parts; which bodies a project lacks."""

import hashlib

import httpx2 as httpx
import pytest
from tests.contract.harness import attempt
from tests.e2e.api.harness import Running

from jarvis.core.changes import Changes
from jarvis.core.ids import SOLO
from jarvis.core.manifest import PIECE, File, Manifest, encode

DATA = bytes(range(256)) * 4096 + b"and a bit more"
DIGEST = hashlib.sha256(DATA).hexdigest()
PIECES = tuple(hashlib.sha256(DATA[at : at + PIECE]).hexdigest() for at in (0, PIECE))


async def with_artifacts(server: Running) -> int:
    """A task of alice whose second attempt left a file, and whose third left none yet."""
    alice = server.client("alice")
    ident = int((await alice.post("/tasks", json={"command": ["true"], "artifacts": ["x"]})).json()["id"])
    for at in (0, PIECE):
        await server.services.blobs.put("red", DATA[at : at + PIECE])
    listed = Manifest(
        (File("d/x", len(DATA), DIGEST, PIECES), File("e", 0, hashlib.sha256(b"").hexdigest(), ())), ("'y': no",)
    )
    manifest = await server.services.blobs.put("red", encode(listed))
    tries = [attempt(ident, number=n, nth=n, artifacts=manifest if n == 2 else None) for n in (1, 2, 3)]
    await server.commit(Changes(attempts_new={(ident, SOLO, a.attempt): a for a in tries}), kind="x", task=ident)
    return ident


async def test_they_are_listed_for_those_who_may_read_the_task(server: Running) -> None:
    ident = await with_artifacts(server)
    page = (await server.client("bob").get(f"/tasks/{ident}/artifacts")).json()
    assert (page["attempt"], page["size"], page["left_out"]) == (2, len(DATA), ["'y': no"])
    assert page["items"][0] == {
        "path": "d/x", "size": len(DATA), "digest": DIGEST, "executable": False, "pack": None, "offset": None,
    }  # fmt: skip
    first = (await server.client("bob").get(f"/tasks/{ident}/artifacts", params={"attempt": 1})).json()
    assert (first["attempt"], first["items"]) == (None, [])
    for path in ("", f"/{DIGEST}"):
        assert (await server.client("eve").get(f"/tasks/{ident}/artifacts{path}")).status_code == 404
        assert (await server.client(None).get(f"/tasks/{ident}/artifacts{path}")).status_code == 401
        assert (
            await server.client("bob").get(f"/tasks/{ident}/artifacts{path}", params={"attempt": 9})
        ).status_code == 404
        assert (
            await server.client("bob").get(f"/tasks/{ident}/artifacts{path}", params={"attempt": "x"})
        ).status_code == 422


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-", 0, len(DATA)), ("bytes=5-9", 5, 10), (f"bytes={PIECE - 3}-{PIECE + 2}", PIECE - 3, PIECE + 3),
        ("bytes=-4", len(DATA) - 4, len(DATA)), (f"bytes={PIECE}-", PIECE, len(DATA)), ("bytes=-99999999", 0, len(DATA)),
        (f"bytes=7-{10**15}", 7, len(DATA)),
    ],
)  # fmt: skip
async def test_a_part_is_a_part(server: Running, asked: str, start: int, end: int) -> None:
    ident = await with_artifacts(server)
    answer = await server.client("alice").get(f"/tasks/{ident}/artifacts/{DIGEST}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, DATA[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


async def test_the_whole_and_what_is_no_part_of_it(server: Running) -> None:
    ident = await with_artifacts(server)
    alice, url = server.client("alice"), f"/tasks/{ident}/artifacts/{DIGEST}"
    for headers in ({}, {"Range": "lines=1-2"}, {"Range": "bytes=1-2,5-6"}, {"Range": "bytes=-"}):
        answer = await alice.get(url, headers=headers)
        assert (answer.status_code, answer.content) == (200, DATA)
        assert answer.headers["etag"] == f'"{DIGEST}"'
    for asked in (f"bytes={len(DATA)}-", "bytes=9-5", "bytes=-0"):
        assert (await alice.get(url, headers={"Range": asked})).status_code == 416
    assert (await alice.get(f"/tasks/{ident}/artifacts/{hashlib.sha256(b'').hexdigest()}")).content == b""
    assert (await alice.get(f"/tasks/{ident}/artifacts/{PIECES[0]}")).status_code == 404, "a piece is no artifact"
    assert (await alice.get(f"/tasks/{ident}/artifacts/xyz")).status_code == 422


async def test_what_is_lost_is_told_and_not_cut_short(server: Running) -> None:
    ident = await with_artifacts(server)
    alice, url = server.client("alice"), f"/tasks/{ident}/artifacts/{DIGEST}"
    await server.services.blobs.delete("red", PIECES[1])
    with pytest.raises(httpx.TransportError):
        await alice.get(url)
    assert (await alice.get(url, headers={"Range": f"bytes={PIECE}-"})).status_code == 404
    (manifest,) = [a.artifacts for a in await server.store.attempt_list((ident, SOLO)) if a.artifacts]  # type: ignore[arg-type]
    await server.services.blobs.delete("red", manifest)
    assert (await alice.get(f"/tasks/{ident}/artifacts")).status_code == 404


async def test_a_project_says_what_it_lacks(server: Running) -> None:
    there, not_there = await server.services.blobs.put("red", b"there"), "0" * 64
    asked = {"digests": [there, not_there]}
    answer = (await server.client("alice").post("/blobs/missing", json=asked)).json()
    assert answer == {"missing": [not_there], "project": "red"}
    eve = server.client("eve")
    assert (await eve.post("/blobs/missing", json=asked)).json() == {"missing": [there, not_there], "project": "blue"}
    assert (await eve.post("/blobs/missing", json={**asked, "project": "red"})).status_code == 403
    bad: list[dict[str, object]] = [
        {}, {"digests": []}, {"digests": ["x"]}, {"digests": "x"}, {"digests": [there] * 5001}, {"digests": [1]},
    ]  # fmt: skip
    for body in bad:
        assert (await eve.post("/blobs/missing", json=body)).status_code == 422


async def test_small_files_are_given_alone_and_by_the_pack(server: Running) -> None:
    alice, pack = server.client("alice"), b"onetwothree"
    ident = int((await alice.post("/tasks", json={"command": ["true"], "artifacts": ["x"]})).json()["id"])
    piece = await server.services.blobs.put("red", pack)
    words = [(b"one", 0), (b"two", 3), (b"three", 6)]
    files = tuple(
        File(w.decode(), len(w), hashlib.sha256(w).hexdigest(), (piece,), within=at) for w, at in sorted(words)
    )
    manifest = await server.services.blobs.put("red", encode(Manifest(files)))
    await server.commit(
        Changes(attempts_new={(ident, SOLO, 1): attempt(ident, artifacts=manifest)}), kind="x", task=ident
    )
    items = (await alice.get(f"/tasks/{ident}/artifacts")).json()["items"]
    assert [(item["path"], item["pack"], item["offset"]) for item in items] == [
        ("one", piece, 0), ("three", piece, 6), ("two", piece, 3),
    ]  # fmt: skip
    assert (await alice.get(f"/tasks/{ident}/artifacts/{items[1]['digest']}")).content == b"three"
    part = await alice.get(f"/tasks/{ident}/artifacts/{items[1]['digest']}", headers={"Range": "bytes=2-3"})
    assert (part.status_code, part.content) == (206, b"re")
    assert (await alice.get(f"/tasks/{ident}/artifacts/{piece}")).content == pack
    assert (await server.client("eve").get(f"/tasks/{ident}/artifacts/{piece}")).status_code == 404
    await server.services.blobs.delete("red", piece)
    for digest in (piece, items[0]["digest"]):
        assert (await alice.get(f"/tasks/{ident}/artifacts/{digest}")).status_code == 404
