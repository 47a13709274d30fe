"""How often a run syncs to disk: ``count_syncs.c`` is put before the C library of everything that a run starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("count_syncs.c")
COUNT = "JARVIS_BENCH_SYNCS"


def count_from_here(directory: Path) -> None:
    """Processes that are started from now on count; without a C compiler nothing does, and the table says so."""
    compiler = shutil.which("cc")
    if compiler is None:
        print("no C compiler: syncs are not counted", file=sys.stderr)
        return
    library, word = directory / "count_syncs.so", directory / "syncs"
    word.write_bytes(bytes(8))
    directory.chmod(0o755)  # servers that refuse to be root count as well
    word.chmod(0o666)
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
    os.environ["LD_PRELOAD"], os.environ[COUNT] = str(library), str(word)


def counted() -> int | None:
    """All so far, or None where nobody counts."""
    word = os.environ.get(COUNT)
    return int.from_bytes(Path(word).read_bytes(), sys.byteorder) if word else None
