"""Structured logging: JSON lines in files, readable lines on a terminal; own files rotate."""

import logging
import logging.handlers
import os
import sys
from io import TextIOWrapper
from pathlib import Path

import structlog


class _OwnFile(logging.handlers.RotatingFileHandler):
    """A log that its owner alone may read, also after it was rotated."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


def configure(level: str, file: Path | None = None, max_bytes: int = 10 << 20, keep: int = 3) -> None:
    """Send every logger's records to ``file``, or to stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
    ]
    pretty = file is None and sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(event_key="message") if pretty else structlog.processors.JSONRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler()
    else:
        handler = _OwnFile(file, maxBytes=max_bytes, backupCount=keep)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
