"""Who starts a server and who looks for it agree on where it is."""

from pathlib import Path

import pytest

from jarvis.config import sources
from jarvis.utils import places


@pytest.mark.parametrize(
    ("env", "file", "expected"),
    [
        ({}, None, "home/.local/state/jarvis"),
        ({"JARVIS_HOME": "h"}, None, "h"),
        ({"XDG_STATE_HOME": "x"}, "log: {level: info}", "x/jarvis"),
        ({"JARVIS_HOME": "h"}, "state_dir: f", "f"),
        ({"JARVIS_STATE_DIR": "s", "JARVIS_HOME": "h"}, "state_dir: f", "s"),
        ({}, "state_dir: ~/mine", "home/mine"),
    ],
)
def test_both_find_the_same_directory(
    env: dict[str, str], file: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JARVIS_HOME", "JARVIS_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "home")
    monkeypatch.setenv("JARVIS_CONFIG", str(tmp_path / "config.yaml"))
    if file is not None:
        (tmp_path / "config.yaml").write_text(file)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert places.state_dir() == sources.state_dir() == Path(expected)


def test_a_file_that_cannot_be_read_says_nothing_to_who_only_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JARVIS_HOME", "h")
    monkeypatch.delenv("JARVIS_STATE_DIR", raising=False)
    monkeypatch.setenv("JARVIS_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text("state_dir: [")
    assert places.state_dir() == Path("h")
