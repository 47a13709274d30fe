"""Imports that fail on purpose."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(module: str) -> Iterator[None]:
    """Within it, whoever tries to import ``module`` is told that there is none, unless it is imported already: for libraries
    that import much, only to see whether they were given something of it."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # what the import statement takes for absent
    try:
        yield
    finally:
        del sys.modules[module]
