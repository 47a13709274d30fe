"""Jarvis: an intelligent cluster manager in Python."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Client", "Executor", "TaskFailed", "__version__", "as_completed", "local", "task", "workflow"]

if TYPE_CHECKING:
    from jarvis.sdk.client import Client
    from jarvis.sdk.errors import TaskFailed
    from jarvis.sdk.functions import Executor, as_completed, task
    from jarvis.sdk.local import local
    from jarvis.sdk.workflow import workflow

_WHERE = {
    "Client": "jarvis.sdk.client",
    "Executor": "jarvis.sdk.functions",
    "TaskFailed": "jarvis.sdk.errors",
    "as_completed": "jarvis.sdk.functions",
    "local": "jarvis.sdk.local",
    "task": "jarvis.sdk.functions",
    "workflow": "jarvis.sdk.workflow",
}


def __getattr__(name: str) -> Any:
    """Import on first use: ``import jarvis`` alone costs nothing."""
    if name not in _WHERE:
        raise AttributeError(f"module 'jarvis' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
