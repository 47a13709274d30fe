"""What an error tells beyond its name."""

from jarvis.core.errors import LeadershipHeld


def test_who_leads_and_for_how_long() -> None:
    error = LeadershipHeld("a", 3.21)
    assert str(error) == "a leads for another 3.2 s"
    assert (error.holder, error.left_s) == ("a", 3.21)
