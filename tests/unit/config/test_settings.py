"""Settings as they are written."""

import pytest

from jarvis.config.settings import load


@pytest.mark.parametrize("what", ["off", "decisions", "rows"])
def test_the_record_may_be_off_although_yaml_reads_a_boolean(what: str) -> None:
    settings, _ = load(None, {"JARVIS_RECORD__WHAT": what, "JARVIS_CONFIG": "/nowhere"})
    assert settings.record.what == what
