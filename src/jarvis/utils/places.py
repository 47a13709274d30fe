"""Where this user's settings and the state of their server are: for those who start a server, and those who look for it. And which
path is within which."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where the YAML file is: JARVIS_CONFIG, else under XDG_CONFIG_HOME."""
    env = os.environ if environ is None else environ
    if env.get("JARVIS_CONFIG"):
        return Path(env["JARVIS_CONFIG"])
    return Path(env.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "jarvis" / "config.yaml"


def default_state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where nothing else is said: JARVIS_HOME, else under XDG_STATE_HOME."""
    env = os.environ if environ is None else environ
    return Path(env.get("JARVIS_HOME") or Path(env.get("XDG_STATE_HOME") or "~/.local/state") / "jarvis").expanduser()


def state_dir() -> Path:
    """Of this user's server, as environment and file say it; a file that cannot be read says nothing here."""
    said = os.environ.get("JARVIS_STATE_DIR") or _in_file(config_path())
    return Path(said).expanduser() if said else default_state_dir()


def _in_file(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    if "state_dir" not in text:
        return ""
    import yaml  # most machines have no file

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        return ""
    return str(data.get("state_dir") or "") if isinstance(data, dict) else ""


def is_below(directory: str, allowed: Sequence[str]) -> bool:
    """Whether it is one of the allowed ones, or within one, wherever links lead."""
    real = Path(directory).resolve()
    return any(real.is_relative_to(Path(one).resolve()) for one in allowed)
