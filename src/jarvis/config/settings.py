"""Settings from flags, environment (``JARVIS_A__B``), a YAML file and defaults, in this order; unknown keys are refused."""

import difflib
import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jarvis.core.errors import JarvisError


class SettingsError(JarvisError):
    """A setting that cannot be meant; names the key and the file or variable."""

    code = "settings"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Section):
    name: str = ""
    """Of this server among several; default: host and process id."""
    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535)
    """0 takes a free port."""
    allowed_hosts: tuple[str, ...] = ()
    body_limit: int = Field(8 * 1024 * 1024, gt=0)


class StoreSettings(_Section):
    kind: Literal["sqlite", "memory", "postgres"] = "sqlite"
    url: str = ""
    """Of the PostgreSQL database, as libpq takes it; several hosts may be named."""
    keep_days: float = Field(30.0, gt=0)
    keep_events_days: float = Field(30.0, gt=0)
    max_bytes: int = Field(20 * 1024**3, gt=0)

    @model_validator(mode="after")
    def _check_url(self) -> "StoreSettings":
        if (self.kind == "postgres") is not bool(self.url):
            raise ValueError("store.kind postgres and store.url postgresql://USER@HOST/DATABASE belong together")
        return self


class BusSettings(_Section):
    redis_url: str = ""
    """What carries messages between servers that share a database; without one, the database does."""


class SchedulerSettings(_Section):
    balancer: Literal["least_loaded", "bin_pack", "spread", "round_robin", "random"] = "least_loaded"
    queues: dict[str, Literal["least_loaded", "bin_pack", "spread", "round_robin", "random"]] = {}


class WorkerSettings(_Section):
    name: str | None = None
    cpus: float | None = Field(None, gt=0)
    memory: str | None = None
    gpus: float | None = Field(None, ge=0)
    labels: dict[str, str] = {}
    taints: tuple[str, ...] = ()
    allow_root: bool = True
    """Whether tasks of root may run as root on this node."""


class ContainerSettings(_Section):
    mounts: tuple[str, ...] | None = None
    """Paths of the node below which container tasks may mount; unset: anything, but nothing where root serves several
    users (``worker.allow_root`` is false)."""


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    max_bytes: int = Field(10 * 1024 * 1024, gt=0)
    keep: int = Field(3, ge=0)


class Settings(_Section):
    """Everything that can be set."""

    state_dir: Path = Path("~/.local/state/jarvis")
    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    bus: BusSettings = BusSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    worker: WorkerSettings = WorkerSettings()
    containers: ContainerSettings = ContainerSettings()
    log: LogSettings = LogSettings()


CLIENT_VARIABLES = frozenset(
    {
        "JARVIS_URL", "JARVIS_TOKEN", "JARVIS_PROJECT", "JARVIS_OUTPUT_FORMAT", "JARVIS_CONFIG", "JARVIS_HOME",
        "JARVIS_SOAK", "JARVIS_TRACES",
    }
)  # fmt: skip


def config_path(environ: dict[str, str] | None = None) -> Path:
    """Where the YAML file is: JARVIS_CONFIG, else under XDG_CONFIG_HOME."""
    env = dict(os.environ) if environ is None else environ
    if env.get("JARVIS_CONFIG"):
        return Path(env["JARVIS_CONFIG"])
    return Path(env.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "jarvis" / "config.yaml"


def load(flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> tuple[Settings, dict[str, str]]:
    """The settings and, for each key that is not a default, where it came from."""
    env = dict(os.environ) if environ is None else environ
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    path = config_path(env)
    for layer, origin in (
        (_from_file(path), str(path)),
        (_from_environment(env), "environment"),
        (flags or {}, "flag"),
    ):
        _merge(merged, layer, origin, origins, ())
    if "state_dir" not in merged:
        merged["state_dir"] = default_state_dir(env)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None
    return settings.model_copy(update={"state_dir": settings.state_dir.expanduser()}), origins


def default_state_dir(env: dict[str, str]) -> str:
    if env.get("JARVIS_HOME"):
        return env["JARVIS_HOME"]
    return str(Path(env.get("XDG_STATE_HOME") or "~/.local/state") / "jarvis")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path} must hold keys and values, not {type(data).__name__}")
    return data


def _from_environment(env: dict[str, str]) -> dict[str, Any]:
    """``JARVIS_SERVER__PORT=8080``; values are read as YAML, so numbers and lists work."""
    out: dict[str, Any] = {}
    for name, value in env.items():
        if (
            not name.startswith("JARVIS_")
            or name in CLIENT_VARIABLES
            or ("__" not in name and name != "JARVIS_STATE_DIR")
        ):
            continue
        at = out
        *parents, last = name[len("JARVIS_") :].lower().split("__")
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = yaml.safe_load(value)
    return out


def _merge(
    into: dict[str, Any], layer: dict[str, Any], origin: str, origins: dict[str, str], path: tuple[str, ...]
) -> None:
    for key, value in layer.items():
        here = (*path, str(key))
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, origin, origins, here)
        elif isinstance(value, dict):
            into[key] = {}
            _merge(into[key], value, origin, origins, here)
        else:
            into[key] = value
            origins[".".join(here)] = origin


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
