"""How long nodes may be silent, as it is written in YAML."""

from pydantic import Field, model_validator

from jarvis.config.section import Section
from jarvis.core.node import DEFAULT_WINDOWS, Windows


class WindowSettings(Section):
    heartbeat_s: float = Field(DEFAULT_WINDOWS.heartbeat_s, ge=0.1)
    suspect_s: float = Field(DEFAULT_WINDOWS.suspect_s, gt=0)
    lost_s: float = Field(DEFAULT_WINDOWS.lost_s, gt=0)
    fence_s: float = Field(DEFAULT_WINDOWS.fence_s, ge=3.0)
    """See :class:`jarvis.core.node.Windows`. All servers of a cluster have the same; while tasks run under ``on_lost: fence``,
    a ``fence_s`` may grow but not shrink: a node that is cut off counts what it was told."""

    @model_validator(mode="after")
    def _check_windows(self) -> "WindowSettings":
        for smaller, name, larger, other in (
            (3 * self.heartbeat_s, "three times heartbeat_s", self.suspect_s, "suspect_s"),
            (self.suspect_s, "suspect_s", self.lost_s, "lost_s"),
            (self.lost_s, "lost_s", self.fence_s, "fence_s"),
        ):
            if smaller > larger:
                raise ValueError(f"{other} ({larger:g} s) must not be less than {name} ({smaller:g} s)")
        return self

    @property
    def windows(self) -> Windows:
        return Windows(self.heartbeat_s, self.suspect_s, self.lost_s, self.fence_s)
