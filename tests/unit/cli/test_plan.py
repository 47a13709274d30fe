"""What the command line makes of the server's answer to a plan, whatever time the client has."""

from typing import Any, Self

import pytest
from click.testing import CliRunner

from jarvis.cli.plan import plan


class Server:
    """A client of one that gives this answer."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer, self.connection = answer, self

    def __call__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def post(self, *_: object) -> dict[str, Any]:
        return self._answer


@pytest.mark.parametrize(("seconds", "told"), [(0.0, False), (None, False), (90.0, True)])
@pytest.mark.parametrize("instant", ["2001-01-01T00:00:00Z", "2201-01-01T00:00:00Z"])
def test_the_server_says_whether_it_waits(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None, told: bool, instant: str
) -> None:
    answer: dict[str, Any] = {
        "verdict": "wait", "node": None, "summary": "it waits", "reasons": [], "changes": [],
        "earliest": None if seconds is None else instant, "earliest_s": seconds,
    }  # fmt: skip
    monkeypatch.setattr("jarvis.cli.plan.Client", Server(answer))
    said = CliRunner().invoke(plan, ["true"], standalone_mode=False)
    assert said.exception is None
    assert ("not before" in said.output) is told
