"""Globs and manifests: what is meant, and what is never taken for something harmless."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis.core.errors import InvalidValue
from jarvis.core.globs import matcher, safe_glob
from jarvis.core.manifest import (
    MAX_MANIFEST,
    PIECE,
    SMALL,
    File,
    Manifest,
    Pack,
    Packer,
    decode,
    encode,
    matches_digest,
    packs,
    safe_path,
)

EMPTY = hashlib.sha256(b"").hexdigest()
SOME = "ab" * 32


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("a.csv", "a.csv", True), ("a.csv", "b/a.csv", False), ("*.csv", "a.csv", True), ("*.csv", "b/a.csv", False),
        ("out", "out/b/c", True), ("out/", "out/b", True), ("./out/*", "out/b/c", True), ("out/*", "out", False),
        ("**", "a", True), ("**", "a/b/c", True), ("**/x", "x", True), ("**/x", "a/b/x", True), ("a/**", "a", False),
        ("a/**", "a/b/c", True), ("a/**/z", "a/z", True), ("a/**/z", "a/b/c/z", True), ("a/**/z", "b/z", False),
        ("**/**/z", "z", True), ("[ab].c?", "a.cc", True), ("[!ab].c?", "a.cc", False), ("*", ".hidden", True),
        ("A", "a", False), ("a\nb", "a\nb", True),
    ],
)  # fmt: skip
def test_globs(pattern: str, path: str, expected: bool) -> None:
    assert matcher([safe_glob(pattern, "f")])(path) is expected
    assert matcher(["no", pattern])(path) is expected


@pytest.mark.parametrize("pattern", ["", "/a", "..", "a/../b", "a/..", ".", "./.", "a\0", "x" * 1001])
def test_globs_that_could_leave_their_directory_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidValue, match="pull"):
        safe_glob(pattern, "pull")


@pytest.mark.timeout(60)
def test_no_glob_takes_for_ever() -> None:
    """Each of these would, if all ways to match were tried one after the other."""
    assert not matcher(["**/a/" * 60 + "b"])("a/" * 200 + "c")
    assert not matcher(["*a" * 60 + "b"])("a" * 255)


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a/.", "a\\b", "C:x", "c:\\x", "a\0b", "x" * 256, "a/" * 2500 + "b"],
)  # fmt: skip
def test_paths_that_lead_outside_or_nowhere_are_refused(path: str) -> None:
    with pytest.raises(InvalidValue, match="relative path"):
        safe_path(path)


@pytest.mark.parametrize("path", ["a", "a/b", ".git/x", "...", "a b/ü", "-rf", "aa:b"])
def test_other_paths_are_taken(path: str) -> None:
    assert safe_path(path) == path


def test_a_manifest_comes_back_as_it_was() -> None:
    files = (File("a", 0, EMPTY, ()), File("b/c", PIECE + 1, SOME, (SOME, SOME), executable=True))
    made = Manifest(files, ("x: y",))
    assert decode(encode(made)) == made
    assert (made.size, made.pieces) == (PIECE + 1, frozenset({SOME}))


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ([File("../a", 0, EMPTY, ())], "relative"),
        ([File("a", 0, EMPTY, ()), File("a", 0, EMPTY, ())], "once"),
        ([File("a", 0, EMPTY, ()), File("a/b/c", 0, EMPTY, ())], "file or a directory"),
        ([File("a", 5, EMPTY, ())], "size"),
        ([File("a", -1, EMPTY, ())], "size"),
        ([File("a", 5, SOME, (SOME, SOME))], "size"),
        ([File("a", 5, SOME, ("x",))], "sha256"),
        ([File("a", 5, SOME, (SOME,), within=-1)], "size"),
        ([File("a", 5, SOME, (SOME,), within=PIECE - 4)], "size"),
        ([File("a", 5, SOME, (SOME, SOME), within=0)], "size"),
        ([File("a", 0, SOME, (SOME,), within=0)], "size"),
        ([File("a", 0, SOME.upper(), ())], "sha256"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(files: list[File], word: str) -> None:
    with pytest.raises(InvalidValue, match=word):
        decode(encode(Manifest(tuple(files))))


def packed(contents: dict[str, bytes]) -> list[Pack]:
    packer = Packer()
    found = [packer.add(File(path, len(d), hashlib.sha256(d).hexdigest(), ()), d) for path, d in contents.items()]
    return [pack for pack in (*found, packer.finish()) if pack is not None]


def test_small_files_share_packs_that_hold_them_as_they_are() -> None:
    contents = {f"{n:04}": bytes([n % 251]) * (n % 40 + 1) + b"%d" % n for n in range(1000)}
    found = packed(contents)
    assert len(found) < 40
    files = [file for pack in found for file in pack.files]
    assert decode(encode(Manifest(tuple(files)))).files == tuple(files)
    for pack in found:
        for file in pack.files:
            assert matches_digest(pack.data, file.pieces[0])
            at = file.within or 0
            assert pack.data[at : at + file.size] == contents[file.path]
    together = [pack for pack in found if len(pack.files) > 1]
    assert packs([*files, File("z", 0, EMPTY, ())]) == {pack.files[0].pieces[0]: list(pack.files) for pack in together}


def test_a_file_that_changes_changes_few_packs() -> None:
    contents = {f"{n:04}": b"%d" % n for n in range(1000)}
    before = {pack.data for pack in packed(contents)}
    after = {pack.data for pack in packed(contents | {"0500": b"another", "0500a": b"one more"})}
    assert len(after - before) <= 3
    assert len(before & after) > 5


def test_packs_are_no_larger_than_pieces_and_one_alone_is_a_plain_file() -> None:
    found = packed({f"{n}": b"%d" % n * (SMALL // len(b"%d" % n)) for n in range(100)})
    assert max(len(pack.data) for pack in found) <= PIECE
    assert len(found) < 15
    (alone,) = packed({"a": b"x"})
    (file,) = alone.files
    assert (file.within, file.pieces) == (None, (file.digest,))
    assert packed({}) == []


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.raises(InvalidValue):
        decode(data + b"!")


def test_a_manifest_has_an_upper_size() -> None:
    files = tuple(File(f"{i:0200}", 0, EMPTY, ()) for i in range(MAX_MANIFEST // 250))
    with pytest.raises(InvalidValue, match="pack them"):
        encode(Manifest(files))


def test_digests() -> None:
    assert matches_digest(b"", EMPTY)
    assert not matches_digest(b"x", EMPTY)
