"""PURE: within which bounds numbers from nodes are believed: what every store can keep, and what can be reckoned with."""

from typing import Annotated

from msgspec import Meta

Whole = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Finite = Annotated[float, Meta(ge=-1e15, le=1e15)]
"""Neither infinite nor no number at all: with those, nothing is before or after anything."""
