"""Where a function's node looks for programs and modules."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from jarvis.sdk.functions import environment


def test_nothing_is_said_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/a:/b:/a:/c:/b")
    monkeypatch.setattr(sys, "path", ["/work", "/lib", "/work", "/site"])
    assert environment() == {"PATH": "/a:/b:/c", "PYTHONPATH": "/work:/lib:/site"}


def test_where_this_program_began_is_said_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/site"])
    assert environment()["PYTHONPATH"] == f"{Path.cwd()}:/site"


def test_modules_are_found_in_the_same_order_there() -> None:
    """Only what every interpreter has of its own is left out: its library stays in its place, before installed packages."""
    says = "import sys; print(*sys.path, sep=chr(10))"
    env = os.environ | environment()
    there = subprocess.run([sys.executable, "-c", says], env=env, capture_output=True, text=True, check=True)
    found = list(dict.fromkeys(there.stdout.split("\n")))
    here = list(dict.fromkeys(entry for entry in sys.path if entry))
    left_out = {entry for entry in here if entry not in environment()["PYTHONPATH"].split(os.pathsep)}
    assert left_out <= set(found), "each interpreter brings it along"
    assert [entry for entry in found if entry in here and entry not in left_out] == [
        entry for entry in here if entry not in left_out
    ]
    assert {entry.rpartition("/")[2] for entry in left_out} <= {
        "lib-dynload",
        f"python{sysconfig.get_config_var('py_version_nodot')}.zip",
    }
