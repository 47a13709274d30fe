"""PURE: what makes two steps with a cache the same: their key, and everything that what they give may depend on."""

import hashlib

import msgspec

from jarvis.core.task import TaskSpec
from jarvis.core.workflow import Cache, Kept

_CONTENT = (
    "command", "script", "function", "container", "array", "cwd", "stdin", "stdout", "stderr", "login_shell", "push",
    "artifacts",
)  # fmt: skip
_OWN = frozenset({"JARVIS_WORKFLOW_ID", "JARVIS_WORKFLOW_STEP"})
"""Variables that differ from one workflow to the next, whatever its steps do."""
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def key_of(key: str, task: TaskSpec) -> str:
    """Under what the output of this task, its templates filled in, is kept. Where it runs, how long it may take and with what
    priority make no difference."""
    env = {name: value for name, value in task.env.items() if name not in _OWN}
    return hashlib.sha256(_encode([key, env, *(getattr(task, name) for name in _CONTENT)])).hexdigest()


def is_fresh(kept: Kept, cache: Cache, now: float) -> bool:
    """Young enough for whoever kept it and for whoever wants it."""
    return now < min(kept.expires_at, kept.at + cache.ttl)
