"""The collector of cycles, for processes that keep many records and make hardly any cycles."""

import gc

OFTEN, SELDOM, RARE = 10_000, 2, 5_000
"""Allocations before a look at the youngest; looks before one at the middle-aged; those before one at everything. With the
defaults, made for small programs, a fifth of a busy server's time went into looking at records that reference counts free. Each
object is looked at once or twice before it counts as old, whatever the figures are: they say how many at a time, and so for how
long everything else waits (a microsecond each, where memory is large)."""


def look_seldom() -> None:
    """For a whole process, as the first thing of its start: with the defaults a tenth of a start, too, goes into looking at
    modules that stay."""
    gc.set_threshold(OFTEN, SELDOM, RARE)


def keep_what_is_here() -> None:
    """All modules are imported: none of what they hold is looked at any more."""
    gc.freeze()
