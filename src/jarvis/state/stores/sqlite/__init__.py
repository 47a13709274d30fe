"""The store in one SQLite file, for the embedded profile and one machine."""

from jarvis.state.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
