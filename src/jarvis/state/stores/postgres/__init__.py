"""The store in PostgreSQL, for several servers."""

from jarvis.state.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
