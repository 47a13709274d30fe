"""A cluster whose bodies are in a bucket: files, logs and functions, and none of them on the server's disk."""

import os
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home
from tests.servers import s3

pytestmark = pytest.mark.timeout(180)


def test_bodies_are_in_the_bucket_and_nowhere_else(fresh: Home, tmp_path: Path) -> None:
    there = s3.shared()
    fresh.env |= {"JARVIS_STORE__BLOBS": there.bucket(), "JARVIS_STORE__BLOBS_ENDPOINT": there.endpoint, **s3.KEYS}
    data = os.urandom(3_000_000)
    (tmp_path / "in").write_bytes(data)
    fresh.jarvis("up", "--cpus", "2")
    fresh.jarvis("run", "--push", "in", "--pull", "out", "--", "cp", "in", "out", cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == data
    ident = fresh.jarvis("submit", "-q", "--wait", "--", "seq", "100000").stdout.strip()
    assert fresh.jarvis("logs", ident).stdout.endswith("\n99999\n100000\n")
    assert not list((fresh.directory / "blobs").rglob("*"))
    again = fresh.jarvis("run", "--push", "in", "true", cwd=tmp_path).stderr
    assert "3.0 MB of them there already" in again


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"JARVIS_STORE__BLOBS": "ftp://x"}, "s3://BUCKET"),
        ({"JARVIS_STORE__BLOBS_ENDPOINT": "http://x"}, "beside store.blobs"),
        ({"JARVIS_STORE__BLOBS": "s3://x", "JARVIS_STORE__BLOBS_ENDPOINT": "x"}, "http://"),
    ],
)
def test_bad_settings_are_named(fresh: Home, given: dict[str, str], word: str) -> None:
    fresh.env |= given
    said = fresh.jarvis("up", code=1).stderr
    assert word in said and "store" in said and "Traceback" not in said
