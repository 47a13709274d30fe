"""Defects of the safety rules, written into a copy of the product: simulation alone must find each of them.

``python -m tests.sim.mutants`` tells the first seed that notices each, ``python -m tests.sim.mutants NAME…`` that of some;
``--from N`` begins at another seed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src"
STEPS = 4
LIMIT = 200
"""Seeds within which a defect must be found; else it is the judge who has one."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """``old`` stands once in the file and becomes ``new``; ``seed`` is the first that noticed, in a world of so many servers,
    ``scarce`` one in which licences and nodes are, with ``gangs`` one of tasks on several nodes."""

    name: str
    file: str
    old: str
    new: str
    seed: int
    servers: int = 0
    scarce: bool = False
    gangs: bool = False


MUTANTS = [Mutant(**entry) for entry in tomllib.loads((HERE / "mutants.toml").read_text(encoding="utf-8"))["mutant"]]


@contextmanager
def mutated(mutant: Mutant) -> Iterator[Path]:
    """A copy of the source with the defect in it."""
    with tempfile.TemporaryDirectory(prefix="jarvis-mutant-") as directory:
        copy = Path(directory) / "src"
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / "jarvis" / mutant.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            raise ValueError(f"{mutant.name}: what it replaces stands {text.count(mutant.old)} times in {mutant.file}")
        file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        yield copy


def killer(mutant: Mutant, seeds: range) -> int | None:
    """The first of the seeds that goes wrong on the mutant; None when it survives them all."""
    with mutated(mutant) as source:
        which = f"{seeds[0]}..{seeds[-1]}"
        command = [sys.executable, "-m", "jarvis.sim", "--seeds", which, "--steps", str(STEPS), "--first"]
        command += ["--servers", str(mutant.servers)]
        command += ["--scarce"] * mutant.scarce + ["--gangs"] * mutant.gangs
        environment = {**os.environ, "PYTHONPATH": str(source)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    found = re.search(r"^seed (\d+):", done.stdout, re.MULTILINE)
    if found is None:
        raise ValueError(f"{mutant.name} does not even run: {done.stderr[-2000:]}")
    return int(found[1])


def main() -> None:
    """Exit code 1 when one survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed (default 1)")
    options = parser.parse_args()
    survivors = 0
    for mutant in MUTANTS:
        if not options.names or mutant.name in options.names:
            seed = killer(mutant, range(options.first, options.first + LIMIT))
            survivors += seed is None
            sys.stdout.write(f"{mutant.name}: {'survives' if seed is None else seed}\n")
            sys.stdout.flush()
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
