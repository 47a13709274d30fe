"""Pictures of workflows by the command line: of files and of what runs, as text, as SVG and as pixels."""

import os
import pty
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home

from jarvis.cli.picture import MOST_PIXELS, png
from jarvis.sdk.client import Client

DOCUMENT = "steps: [{id: one, command: 'true'}, {id: two, command: 'true', depends_on: [one]}]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "w.yaml"
    path.write_text(DOCUMENT)
    return path


def graph(
    home: Home, *args: str, before: str = "pass", stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    program = f"import sys; {before}; from jarvis.cli.main import main; main()"
    command = [sys.executable, "-c", program, "workflow", "graph", *args]
    return subprocess.run(command, env=home.env, stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False)


def size_of(data: bytes) -> tuple[int, int]:
    """As the header of a PNG tells it."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_a_png_is_the_svg_at_twice_its_size(up: Home, client: Client, file: Path) -> None:
    handle = client.submit_workflow(DOCUMENT)
    assert handle.wait(60)["state"] == "succeeded"
    pictures = {}
    for what in (str(file), str(handle.id)):
        svg = graph(up, what, "-o", "svg").stdout.decode()
        found = re.search(r'width="(\d+)" height="(\d+)"', svg)
        assert found is not None
        pictures[what] = graph(up, what, "-o", "png").stdout
        assert size_of(pictures[what]) == (2 * int(found[1]), 2 * int(found[2]))
    assert len(set(pictures.values())) == 2, "states have colours"


def test_a_huge_picture_is_drawn_smaller() -> None:
    width, height = size_of(png('<svg xmlns="http://www.w3.org/2000/svg" width="100000" height="2000"></svg>'))
    assert 0.9 * MOST_PIXELS < width * height <= 1.01 * MOST_PIXELS


def test_without_the_extra_it_is_named(up: Home, file: Path) -> None:
    done = graph(up, str(file), "-o", "png", before="sys.modules['resvg_py'] = None")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"this needs the extra 'png': pip install 'jarvis-cluster[png]'" in done.stderr


def test_pixels_are_not_written_to_a_terminal(up: Home, file: Path) -> None:
    controller, terminal = pty.openpty()
    try:
        done = graph(up, str(file), "-o", "png", stdout=terminal)
    finally:
        os.close(terminal)
        os.close(controller)
    assert done.returncode == 2 and b"write it to a file" in done.stderr


def test_what_cannot_be_drawn_is_told(up: Home, file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("steps:\n  - {id: a, command: 'true', depends_on: [b]}\n")
    for form in ("png", "svg", "mermaid"):
        done = graph(up, str(bad), "-o", form)
        assert done.returncode == 1 and b"bad.yaml:2:" in done.stderr and not done.stdout
    assert graph(up, str(file), "-o", "gantt").returncode == 2
    assert graph(up, str(tmp_path / "none.yaml"), "-o", "png").returncode == 2
    assert graph(up, "999999", "-o", "png").returncode == 3
