"""What can be set, from flags, environment, a YAML file and defaults, in this order; unknown keys are refused."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from jarvis.config.policies import SchedulerSettings
from jarvis.config.section import Section as _Section
from jarvis.config.sources import SettingsError, merged
from jarvis.core.errors import InvalidValue
from jarvis.core.resources import parse_bytes


def _bytes(value: object) -> int:
    try:
        return parse_bytes(value)
    except InvalidValue as error:
        raise ValueError(error.hint) from None


def _byte_list(value: object) -> tuple[int, ...]:
    parts = value if isinstance(value, list | tuple) else [value]
    return tuple(_bytes(part.strip() if isinstance(part, str) else part) for whole in parts for part in _split(whole))


def _split(value: object) -> list[object]:
    return [*value.split(",")] if isinstance(value, str) else [value]


Size = Annotated[int, BeforeValidator(_bytes)]
"""Bytes, also written like 512Mi or 4G."""
Sizes = Annotated[tuple[int, ...], BeforeValidator(_byte_list)]
"""Several, as a list or with commas between."""


def _check_absolute(name: str, paths: tuple[str, ...]) -> None:
    if wrong := [path for path in paths if not path.startswith("/")]:
        raise ValueError(f"{name}: {wrong[0]!r} is not an absolute path")


class ServerSettings(_Section):
    name: str = ""
    """Of this server among several; default: host and process id."""
    role: Literal["all", "api", "scheduler"] = "all"
    """Among several servers: ``api`` takes requests and never leads, ``scheduler`` leads and takes none."""
    scheduler_process: Literal["auto", "own", "shared"] = "auto"
    """Whether a server of role ``all`` decides in a process of its own; ``auto``: where it has
    four processors or more, and shares its database."""
    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535)
    """0 takes a free port."""
    allowed_hosts: tuple[str, ...] = ()
    listen: str = ""
    """``ADDRESS[:PORT]`` where nodes and people on other machines reach it, by TLS; ``0.0.0.0`` is every address."""
    advertise: tuple[str, ...] = ()
    """Names and addresses by which others reach it, the first one first; default: the host's own."""
    body_limit: Size = Field(8 * 1024 * 1024, gt=0)
    watch: tuple[str, ...] = ()
    """Directories in which, and below which, schedules may wait for files; with several servers the same on each, and
    shared."""

    @model_validator(mode="after")
    def _check_watch(self) -> "ServerSettings":
        _check_absolute("server.watch", self.watch)
        return self


class StoreSettings(_Section):
    kind: Literal["sqlite", "memory", "postgres"] = "sqlite"
    url: str = ""
    """Of the PostgreSQL database, as libpq takes it; several hosts may be named."""
    blobs: str = ""
    """``s3://BUCKET/PREFIX``: where bodies and files of tasks are kept; default: beside the database, or in it."""
    blobs_endpoint: str = ""
    """URL of another provider's S3 than AWS's."""
    keep_days: float = Field(30.0, gt=0)
    keep_events_days: float = Field(30.0, gt=0)
    max_bytes: Size = Field(20 * 1024**3, gt=0)

    @model_validator(mode="after")
    def _check_url(self) -> "StoreSettings":
        if (self.kind == "postgres") is not bool(self.url):
            raise ValueError("store.kind postgres and store.url postgresql://USER@HOST/DATABASE belong together")
        if self.blobs and not re.match(r"s3://[^/]+", self.blobs):
            raise ValueError("store.blobs is s3://BUCKET or s3://BUCKET/PREFIX")
        if self.blobs_endpoint and (not self.blobs or not re.match(r"https?://[^/]+", self.blobs_endpoint)):
            raise ValueError("store.blobs_endpoint is http://… or https://…, beside store.blobs")
        return self


class BusSettings(_Section):
    redis_url: str = ""
    """What carries messages between servers that share a database; without one, the database does."""


class WorkerSettings(_Section):
    name: str | None = None
    cpus: float | None = Field(None, gt=0)
    memory: Size | None = Field(None, gt=0)
    gpus: float | None = Field(None, ge=0)
    gpu_memory: Sizes = ()
    """Of each GPU, or one size for all; default: what their drivers say."""
    labels: dict[str, str] = {}
    taints: tuple[str, ...] = ()
    health_check: str = ""
    """A command: while it exits with something else than 0, the node takes no new work."""
    health_interval_s: float = Field(60.0, ge=1.0)
    prolog: str = ""
    epilog: str = ""
    """Commands before and after each attempt; where one fails, the node is drained."""
    hook_timeout_s: float = Field(30.0, gt=0)
    """How long each of the three may take."""
    file_cache: Size = Field(10 * 1024**3, ge=0)
    """Bytes on its disk for files that were sent along with tasks and may be wanted again."""
    watch: tuple[str, ...] = ()
    """Directories of this node in which, and below which, schedules may wait for files."""
    proxy: str = ""
    """URL of an HTTP proxy on the way to the servers, before HTTPS_PROXY of the environment; NO_PROXY is respected."""
    allow_root: bool = True
    """Whether tasks of root may run as root on this node."""

    @model_validator(mode="after")
    def _check_watch(self) -> "WorkerSettings":
        _check_absolute("worker.watch", self.watch)
        return self

    @model_validator(mode="after")
    def _check_gpu_memory(self) -> "WorkerSettings":
        if self.gpu_memory and not all(self.gpu_memory):
            raise ValueError("worker.gpu_memory: every GPU has some")
        if self.gpus and len(self.gpu_memory) > 1 and len(self.gpu_memory) != -(-self.gpus // 1):
            raise ValueError(f"worker.gpu_memory: give one size, or one for each of the {self.gpus:g} GPUs")
        return self


class ContainerSettings(_Section):
    mounts: tuple[str, ...] | None = None
    """Paths of the node below which container tasks may mount; unset: anything, but nothing where root serves several
    users (``worker.allow_root`` is false)."""


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    max_bytes: Size = Field(10 * 1024 * 1024, gt=0)
    keep: int = Field(3, ge=0)


class RecordSettings(_Section):
    what: Literal["off", "decisions", "rows"] = "decisions"
    """How a replay compares what the leader decided: by every event and the keys of all rows, or by every field of every row,
    which takes three times as long. ``off`` writes nothing down."""
    max_bytes: Size = Field(256 * 1024**2, ge=1024**2)
    """The oldest goes first."""

    @field_validator("what", mode="before")
    @classmethod
    def _check_what(cls, what: object) -> object:
        """YAML reads the word as a boolean."""
        return "off" if what is False else what


class Settings(_Section):
    """Everything that can be set."""

    state_dir: Path = Path("~/.local/state/jarvis")
    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    bus: BusSettings = BusSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    record: RecordSettings = RecordSettings()
    worker: WorkerSettings = WorkerSettings()
    containers: ContainerSettings = ContainerSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _check_role(self) -> "Settings":
        if self.server.role != "all" and self.store.kind != "postgres":
            raise ValueError(f"server.role {self.server.role} needs other servers, and those need store.kind postgres")
        return self


def load(flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> tuple[Settings, dict[str, str]]:
    """The settings and, for each key that is not a default, where it came from."""
    found, origins = merged(flags, environ)
    try:
        settings = Settings.model_validate(found)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None
    return settings.model_copy(update={"state_dir": settings.state_dir.expanduser()}), origins


def _explain(error: ValidationError, origins: dict[str, str]) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        origin = origins.get(key, "the settings")
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(problem["loc"][-1]), _names(problem["loc"][:-1]), n=1)
            guess = f": did you mean {'.'.join([*map(str, problem['loc'][:-1]), close[0]])}?" if close else ""
            lines.append(f"unknown setting {key} in {origin}{guess}")
        else:
            lines.append(f"{key} in {origin}: {problem['msg']}, not {problem['input']!r}")
    return "; ".join(lines)


def _names(path: tuple[int | str, ...]) -> list[str]:
    model: Any = Settings
    for part in path:
        field = model.model_fields.get(str(part)) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = field.annotation if field is not None else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
