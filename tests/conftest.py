"""How tests share two workers: a file stays together, because its fixtures are dear, and so does what shares one engine. And
that a busy machine fails no test: timings never decide one."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("jarvis", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("jarvis")

ONE_ENGINE = {"containers"}
"""Folders whose files use one server of the whole machine."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = Path(item.path)
        group = path.parent if path.parent.name in ONE_ENGINE else path
        item.add_marker(pytest.mark.xdist_group(str(group)))
