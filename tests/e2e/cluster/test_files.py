"""Files that go with a task and come back from it, by the command line and by the client, on a cluster without a shared disk."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home

from jarvis.core.manifest import PIECE, File, Manifest, encode
from jarvis.sdk import pushing
from jarvis.sdk.client import Client
from jarvis.sdk.errors import ClientError, OverLimit

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def client(up: Home) -> Iterator[Client]:
    with up.client() as made:
        yield made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of a user, with something in it."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.txt").write_text("hello\n")
    (tmp_path / "go.sh").write_text(
        "#!/bin/sh\ncat src/a.txt\nmkdir -p out/deep\ncp big out/big\necho 1 > out/deep/x.csv\n"
    )
    (tmp_path / "go.sh").chmod(0o755)
    (tmp_path / "big").write_bytes(os.urandom(2 * PIECE + 17))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)


def test_run_sends_files_along_and_brings_results_back(up: Home, here: Path) -> None:
    done = up.jarvis("run", "--push", ".", "--pull", "out", "--", "./go.sh", cwd=here)
    assert done.stdout == "hello\n"
    assert "push: 3 files, 2.1 MB" in done.stderr
    assert "pull: 2 files, 2.1 MB" in done.stderr
    assert (here / "out/big").read_bytes() == (here / "big").read_bytes()
    assert (here / "out/deep/x.csv").read_text() == "1\n"
    again = up.jarvis("run", "--push", ".", "--pull", "out/**/*.csv", "--", "./go.sh", cwd=here)
    assert "5 files, 4.2 MB, 4.2 MB of them there already" in again.stderr
    assert not list(here.rglob(".*.part"))


def test_a_thousand_small_files_are_few_bodies(up: Home, client: Client, here: Path) -> None:
    (here / "in").mkdir()
    for number in range(1000):
        (here / "in" / f"{number:04}").write_bytes(os.urandom(1024))
    blobs = up.directory / "blobs"

    def bodies() -> int:
        return sum(path.is_file() for path in blobs.rglob("*"))

    before, begun = bodies(), time.monotonic()
    client.push("in")
    print(f"1,000 files of 1 KiB pushed in {time.monotonic() - begun:.2f} s")  # noqa: T201 - the figure is the point
    assert 0 < bodies() - before < 50
    before = bodies()
    (here / "in" / "0500").write_bytes(b"another")
    done = up.jarvis("run", "--push", "in", "--pull", "out", "--", "mv", "in", "out", cwd=here)
    assert "pull: 1,000 files, 1.0 MB" in done.stderr
    assert bodies() - before < 10, "those that did not change are there, in both directions"
    for path in (here / "in").iterdir():
        assert (here / "out" / path.name).read_bytes() == path.read_bytes()
    (here / "out" / "0007").write_bytes(b"damaged here")
    (here / "out" / "0008").unlink()
    ident = client.connection.get("/tasks", limit=1)["items"][0]["id"]
    up.jarvis("artifacts", "get", str(ident), cwd=here)
    for name in ("0007", "0008"):
        assert (here / "out" / name).read_bytes() == (here / "in" / name).read_bytes()


def test_what_a_failure_left_comes_back_too(up: Home, here: Path) -> None:
    done = up.jarvis(
        "run", "--pull", "*.txt", "--pull", "*.log", "--", "sh", "-c", "echo why > e.log; exit 3", cwd=here, code=3
    )
    assert "pull: 1 file, 4 B" in done.stderr
    assert (here / "e.log").read_text() == "why\n"
    assert "nothing matches nope" in up.jarvis("run", "--pull", "nope", "true", cwd=here).stderr


def test_artifacts_are_listed_and_fetched_later(up: Home, here: Path, client: Client) -> None:
    ident = up.jarvis(
        "submit", "-q", "--push", "src", "--pull", "src", "--wait", "--", "sh", "-c", "echo 2 > src/b", cwd=here
    )
    ident_text = ident.stdout.strip()
    assert up.jarvis("artifacts", "ls", ident_text, "-o", "name").stdout == "src/a.txt\nsrc/b\n"
    page = json.loads(up.jarvis("artifacts", "ls", ident_text, "-o", "json").stdout)
    assert [(item["path"], item["size"]) for item in page["items"]] == [("src/a.txt", 6), ("src/b", 2)]
    assert up.jarvis("artifacts", "get", ident_text, "*/b", "-o", str(here / "got")).stdout == "src/b\n"
    assert [p.name for p in (here / "got").rglob("*") if p.is_file()] == ["b"]
    assert "matches *.zip" in up.jarvis("artifacts", "get", ident_text, "*.zip", code=3).stderr
    handle = client.submit(command=["touch", "y"], artifacts=["y"])
    handle.check(30)
    assert [item["path"] for item in handle.artifacts()["items"]] == ["y"]
    assert handle.get_artifacts(here / "mine") == [here / "mine" / "y"]
    assert "no task 999999" in up.jarvis("artifacts", "ls", "999999", code=3).stderr


def test_only_what_git_tracks_unless_all_is_asked_for(up: Home, here: Path, client: Client) -> None:
    git("init", "-q")
    (here / ".gitignore").write_text("big\n")
    git("add", "go.sh", "src", ".gitignore")
    (here / "untracked").write_text("u")
    names = "find . -type f | sort"
    done = up.jarvis("run", "--push", ".", "--", "sh", "-c", names, cwd=here)
    assert done.stdout.split() == ["./.gitignore", "./go.sh", "./src/a.txt"]
    done = up.jarvis("run", "--push", ".", "--push-all", "--", "sh", "-c", f"{names} | grep -v /.git/", cwd=here)
    assert done.stdout.split() == ["./.gitignore", "./big", "./go.sh", "./src/a.txt", "./untracked"]
    (here / "empty").mkdir()
    assert "need --push-all" in up.jarvis("run", "--push", "empty", "true", cwd=here, code=1).stderr


def test_an_upload_that_broke_off_goes_on_where_it_was(
    here: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "big").write_bytes(os.urandom(6 * PIECE))
    sent: list[str] = []
    send_one = pushing._Sender._send_one

    def breaks(self: pushing._Sender, digest: str, *place: object) -> None:
        if len(sent) >= 3:
            raise ClientError("the line is cut")
        send_one(self, digest, *place)  # type: ignore[arg-type]
        sent.append(digest)

    monkeypatch.setattr(pushing, "AT_ONCE", 1)
    with monkeypatch.context() as patch:
        patch.setattr(pushing._Sender, "_send_one", breaks)
        with pytest.raises(ClientError, match="cut"):
            client.push("big")
    reports: list[pushing.Report] = []
    client.push("big", tell=reports.append)
    assert reports == [pushing.Report(1, 6 * PIECE, 3 * PIECE)]


def test_what_goes_with_a_task_goes_into_its_project(up: Home, here: Path) -> None:
    """Its files, its script and its lines alike."""
    words = ("submit", "-q", "--wait", "-A", "red", "--push", "src", "--pull", "got")
    (here / "lines").write_text("one\ntwo\n")
    (here / "script").write_text("#!/bin/sh\necho $JARVIS_ENTRY > got; cat src/a.txt >> got\n")
    ident = up.jarvis(*words, "--each-line", "lines", "script", cwd=here).stdout.strip()
    up.jarvis("artifacts", "get", f"{ident}_1", "-o", "there", cwd=here)
    assert (here / "there" / "got").read_text() == "two\nhello\n"


def test_too_much_is_refused_before_anything_is_sent(up: Home, here: Path, client: Client) -> None:
    said = up.jarvis("run", "--push", "big", "--push-limit", "1M", "true", cwd=here, code=6).stderr
    assert "1 file, 2.1 MB: more than the limit of 1.0 MB" in said and "--push-limit" in said
    with pytest.raises(OverLimit):
        client.push("big", limit=10)
    up.env["JARVIS_PUSH_LIMIT"] = "3M"
    up.jarvis("run", "--push", "big", "true", cwd=here)
    up.env["JARVIS_PUSH_LIMIT"] = "1M"
    (here / "tasks.yaml").write_text("{command: ['true'], push: big}\n")
    assert "more than the limit of 1.0 MB" in up.jarvis("submit", "tasks.yaml", cwd=here, code=6).stderr
    del up.env["JARVIS_PUSH_LIMIT"]


def test_links_are_files_or_refused(up: Home, here: Path) -> None:
    (here / "link").symlink_to("src/a.txt")
    assert up.jarvis("run", "--push", ".", "--", "sh", "-c", "test -L link || cat link", cwd=here).stdout == "hello\n"
    (here / "far").symlink_to("/etc/hostname")
    assert "leads outside" in up.jarvis("run", "--push", ".", "true", cwd=here, code=1).stderr
    (here / "far").unlink()
    (here / "dir").symlink_to("src")
    assert "link to a directory" in up.jarvis("run", "--push", ".", "true", cwd=here, code=1).stderr
    (here / "dir").unlink()
    os.mkfifo(here / "pipe")
    assert "not a regular file" in up.jarvis("run", "--push", ".", "true", cwd=here, code=1).stderr
    done = up.jarvis("run", "--pull", "*", "--", "sh", "-c", "ln -s /etc/passwd p; mkfifo f; echo 1 > ok", cwd=here)
    assert "'p': links are not followed" in done.stderr and "'f': not a regular file" in done.stderr
    assert (here / "ok").exists() and not (here / "p").exists()


def test_arrays_and_directories(up: Home, here: Path, client: Client) -> None:
    """Each element has a directory of its own; a relative directory lies below it, and so does a relative output file."""
    digest = client.push(here / "src")
    handle = client.submit(
        command="cat a.txt > $JARVIS_ARRAY_INDEX; pwd", push=[digest], artifacts=["src/[0-9]*", "log"], array="0-2",
        cwd="src", stdout="../log",
    )  # fmt: skip
    handle.check(60)
    for index in range(3):
        page = client.artifacts(f"{handle.id}_{index}")
        assert [item["path"] for item in page["items"]] == ["log", f"src/{index}"]
    with pytest.raises(ClientError, match="one element of the array"):
        handle.artifacts()


BAD = [
    ({"push": ["x"]}, "push.0"), ({"push": ["ab" * 32]}, "push.0"), ({"push": ["ab" * 32] * 101}, "push"),
    ({"push": ["${{ steps.a.artifacts }}"]}, "push.0"), ({"artifacts": ["/etc/*"]}, "artifacts.0"),
    ({"artifacts": ["ok", "a/../.."]}, "artifacts.1"), ({"artifacts": ["x"] * 101}, "artifacts"),
    ({"artifacts": [""]}, "artifacts.0"), ({"artifacts": ["x"], "cwd": "/tmp"}, "cwd"),
    ({"artifacts": ["x"], "cwd": "../.."}, "cwd"), ({"artifacts": "x"}, "artifacts"), ({"push": {}}, "push"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "field"), BAD)
def test_bad_fields_are_named(client: Client, given: dict[str, object], field: str) -> None:
    before = client.connection.get("/stats")["tasks"]
    with pytest.raises(ClientError, match=field):
        client.submit(command=["true"], **given)
    assert client.connection.get("/stats")["tasks"] == before


def test_submit_waits_and_brings_back_each_elements_own(up: Home, here: Path) -> None:
    script = "echo $JARVIS_ARRAY_INDEX > got; [ $JARVIS_ARRAY_INDEX != 2 ] || : > two"
    done = up.jarvis(
        "submit", "-q", "--wait", "--array", "1-3", "--pull", "got", "--pull", "two", "--", "sh", "-c", script, cwd=here
    )
    ident = done.stdout.strip()
    for index in (1, 2, 3):
        assert (here / f"{ident}_{index}" / "got").read_text() == f"{index}\n"
    assert done.stderr.count("pull: 1 file") == 2
    again = up.jarvis("artifacts", "get", ident, "two", "-o", "again", cwd=here)
    assert again.stdout == f"{ident}_2/two\n"
    assert [path.name for path in (here / "again").iterdir()] == [f"{ident}_2"]
    up.jarvis("artifacts", "get", f"{ident}_3", "-o", "third", cwd=here)
    assert (here / "third" / "got").read_text() == "3\n"
    alone = up.jarvis("submit", "-q", "--wait", "--pull", "alone", "--", "touch", "alone", cwd=here)
    assert "pull: 1 file, 0 B" in alone.stderr
    assert (here / "alone").exists()


def test_tasks_of_a_file_push_and_pull(up: Home, here: Path) -> None:
    (here / "tasks.yaml").write_text(
        "- {command: cp src/a.txt one, push: src, pull: one}\n"
        "- {command: 'cp big two; echo x > three', push: [big], pull: [two], artifacts: [three]}\n"
    )
    done = up.jarvis("submit", "-q", "--wait", "tasks.yaml", cwd=here)
    first, second = done.stdout.split()
    assert (here / first / "one").read_text() == "hello\n"
    assert (here / second / "two").read_bytes() == (here / "big").read_bytes()
    assert (here / second / "three").exists()
    assert "push: 1 file, 2.1 MB" in done.stderr
    for bad, said in (
        ("push: 7", "entry 1: push: 7"), ("pull: {a: b}", "entry 1: pull"), ("pull: ../x", "--pull"),
        ("push: nope", "no such file"),
    ):  # fmt: skip
        (here / "bad.yaml").write_text(f"command: ['true']\n{bad}\n")
        refused = up.jarvis("submit", "bad.yaml", cwd=here, code=None)
        assert refused.returncode in (1, 2) and said in refused.stderr, refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--push", "nope", "true"], "no such file"),
        (["run", "--pull", "../x", "true"], "--pull"),
        (["run", "--pull", "/x", "true"], "--pull"),
        (["run", "--push-all", "true"], "give a --push"),
        (["run", "--push", "big", "--push-limit", "much", "true"], "--push-limit"),
        (["submit", "--pull", "x", "tasks.yaml"], "tasks.yaml"),
        (["artifacts", "get", "x"], "id"),
        (["artifacts", "ls", "1", "--attempt", "0"], "--attempt"),
    ],
)
def test_bad_words_are_named(up: Home, here: Path, words: list[str], said: str) -> None:
    (here / "tasks.yaml").write_text("command: ['true']\n")
    done = up.jarvis(*words, cwd=here, code=None)
    assert done.returncode in (1, 2) and said in done.stderr and "Traceback" not in done.stderr


def store(client: Client, *files: File) -> str:
    return client.put_blob(encode(Manifest(files)))


def test_a_manifest_must_be_one_and_have_all_its_pieces(client: Client) -> None:
    lacking = hashlib.sha256(os.urandom(9)).hexdigest()
    for digest, word in (
        (client.put_blob(b"no manifest"), "list of files"),
        (store(client, File("../x", 0, hashlib.sha256(b"").hexdigest(), ())), "without '..'"),
        (store(client, File("x", 9, lacking, (lacking,))), f"lacks its piece {lacking}"),
    ):
        with pytest.raises(ClientError, match=r"push\.0") as caught:
            client.submit(command=["true"], push=[digest])
        assert word in str(caught.value)


def test_a_file_that_is_not_what_was_meant_starts_nothing(up: Home, client: Client) -> None:
    """Its pieces are right, but not those of the file that is named; and two manifests that contradict each other."""
    piece, other = client.put_blob(b"one"), client.put_blob(b"two")
    wrong = client.submit(command=["true"], push=[store(client, File("x", 3, other, (piece,)))])
    twice = [store(client, File("x", 3, piece, (piece,))), store(client, File("x", 3, other, (other,)))]
    for handle, word in ((wrong, "do not make up"), (client.submit(command=["true"], push=twice), "pushed twice")):
        assert handle.wait(30)["state"] == "failed"
        (attempt,) = client.connection.get(f"/tasks/{handle.id}/attempts")["items"]
        assert attempt["exit_code"] == 125 and word in attempt["message"]
    assert not list((up.directory / "node/staging").iterdir())


def test_what_is_damaged_on_the_nodes_disk_is_fetched_again(up: Home, here: Path, client: Client) -> None:
    digest = client.push(here / "src")
    client.submit(command=["true"], push=[digest]).check(30)
    (cached,) = (up.directory / "node/files").glob(hashlib.sha256(b"hello\n").hexdigest())
    cached.write_bytes(b"HELLO\n")
    handle = client.submit(command=["cat", "src/a.txt"], push=[digest])
    handle.check(30)
    assert handle.logs() == b"hello\n"


def test_what_is_damaged_on_the_servers_disk_is_noticed(up: Home, here: Path, client: Client) -> None:
    text = os.urandom(40).hex()
    (here / "new").write_text(text)
    digest = client.push(here / "new")
    name = hashlib.sha256(text.encode()).hexdigest()
    (stored,) = up.directory.glob(f"blobs/*/{name[:2]}/{name[2:]}")
    stored.write_text(text.replace(text[0], "x"))
    handle = client.submit(command=["true"], push=[digest])
    assert handle.wait(30)["state"] == "failed"
    (attempt,) = client.connection.get(f"/tasks/{handle.id}/attempts")["items"]
    assert "damaged" in attempt["message"]


def test_nothing_is_written_outside_of_the_directory(
    here: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = client.submit(command="mkdir d; echo 1 > d/x; echo 2 > y", artifacts=["*"])
    handle.check(30)
    outside = here / "outside"
    outside.mkdir()
    inside = here / "inside"
    inside.mkdir()
    (inside / "d").symlink_to(outside)
    with pytest.raises(ClientError, match="a link leads to"):
        handle.get_artifacts(inside)
    assert not list(outside.iterdir()) and not (inside / "y").exists(), "nothing at all is written"
    (inside / "d").unlink()
    (outside / "z").write_text("mine")
    (inside / "y").symlink_to(outside / "z")
    handle.get_artifacts(inside)
    assert (outside / "z").read_text() == "mine" and (inside / "y").read_text() == "2\n"
    get = client.connection.get
    for path in ("../x", "/tmp/x", "a/../../x"):
        bad = {"attempt": 1, "left_out": [], "items": [{"path": path, "size": 0, "digest": "0" * 64}]}
        monkeypatch.setattr(client.connection, "get", lambda *a, bad=bad, **k: bad)
        with pytest.raises(ClientError, match="outside"):
            handle.get_artifacts(inside)
    monkeypatch.setattr(client.connection, "get", get)


def test_other_bytes_than_the_task_left_are_noticed(here: Path, up: Home, client: Client) -> None:
    handle = client.submit(command="head -c 2000000 /dev/urandom > x", artifacts=["x"])
    handle.check(30)
    (item,) = handle.artifacts()["items"]
    with client.connection.stream(f"/tasks/{handle.id}/artifacts/{item['digest']}") as blocks:
        data = b"".join(blocks)
    piece = hashlib.sha256(data[:PIECE]).hexdigest()
    (stored,) = up.directory.glob(f"blobs/*/{piece[:2]}/{piece[2:]}")
    stored.write_bytes(bytes(PIECE))
    with pytest.raises(ClientError, match="other bytes"):
        handle.get_artifacts(here / "got")
    assert not [path for path in (here / "got").rglob("*") if path.is_file()]
