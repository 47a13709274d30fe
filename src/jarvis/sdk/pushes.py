"""What functions and steps are sent along: paths become digests when they are needed, and again after a while."""

import os
import re
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jarvis.sdk.client import Client

AGAIN_S = 600.0
"""What is pushed stays for an hour without a task; so long before that, files are looked at again."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def as_digests(client: "Client", words: Sequence[Any], project: str | None = None) -> list[str]:
    """Paths are pushed together; digests, and templates of workflows, stay what they are."""
    paths = [word for word in words if not _is_said(word)]
    said = [str(word) for word in words if _is_said(word)]
    return said + ([client.push(*paths, project=project)] if paths else [])


def _is_said(word: str | os.PathLike[str]) -> bool:
    return isinstance(word, str) and bool(_DIGEST.match(word) or "${{" in word)


class Pushes:
    """Specs whose ``push`` has been sent: one object for each, so that calls with the same one travel together."""

    def __init__(self, client: "Client") -> None:
        self._client, self._lock = client, threading.Lock()
        self._filled: dict[int, tuple[dict[str, Any], dict[str, Any], float]] = {}
        """The spec that was given is kept, so that its id stays its own."""

    def filled(self, spec: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            known = self._filled.get(id(spec))
            if known is None or known[0] is not spec or time.monotonic() - known[2] > AGAIN_S:
                digests = as_digests(self._client, spec["push"], spec.get("project"))
                before = None if known is None else known[1]
                same = before is not None and before["push"] == digests
                made = before if same and before is not None else {**spec, "push": digests}
                known = self._filled[id(spec)] = (spec, made, time.monotonic())
            return known[1]
