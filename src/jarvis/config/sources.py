"""Where settings come from: a YAML file, the environment (``JARVIS_A__B``), flags; what they may be is told in ``settings``.

Apart from it, so that a command that only has to find the server starts without loading all that checks them.
"""

import os
from pathlib import Path
from typing import Any

from jarvis.core.errors import JarvisError
from jarvis.utils.places import config_path, default_state_dir


class SettingsError(JarvisError):
    """A setting that cannot be meant; names the key and the file or variable."""

    code = "settings"


CLIENT_VARIABLES = frozenset(
    {
        "JARVIS_URL", "JARVIS_TOKEN", "JARVIS_PROJECT", "JARVIS_OUTPUT_FORMAT", "JARVIS_CONFIG", "JARVIS_HOME", "JARVIS_CA",
        "JARVIS_SOAK", "JARVIS_TRACES",
    }
)  # fmt: skip


def merged(
    flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """All that is set, and where each key was; raises :class:`SettingsError` for a file that cannot be read."""
    env = dict(os.environ) if environ is None else environ
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    path = config_path(env)
    for layer, origin in (
        (_from_file(path), str(path)),
        (_from_environment(env), "environment"),
        (flags or {}, "flag"),
    ):
        _merge(found, layer, origin, origins, ())
    if "state_dir" not in found:
        found["state_dir"] = str(default_state_dir(env))
    return found, origins


def state_dir() -> Path:
    """Where the server of this machine keeps its things."""
    return Path(str(merged()[0]["state_dir"])).expanduser()


def _from_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from None
    import yaml  # most machines have no file

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
        at[last] = _value(value)
    return out


def _value(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


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
