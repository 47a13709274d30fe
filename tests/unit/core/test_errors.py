"""What an error tells beyond its name."""

from jarvis.core.errors import LeadershipHeld, NeverFits, NoLicense, NoNodeHasAll, OverQuota, TooFewNodes


def test_who_leads_and_for_how_long() -> None:
    error = LeadershipHeld("a", 3.21)
    assert str(error) == "a leads for another 3.2 s"
    assert (error.holder, error.left_s) == ("a", 3.21)


def test_what_is_too_large_says_what_would_do() -> None:
    one = NeverFits("cpu", "99", "16")
    assert str(one) == "resources.cpu: no node has 99; the largest has 16"
    assert "at most 16 of cpu" in one.hint
    none = NeverFits("gpu", "2", "0")
    assert (str(none), none.hint) == ("resources.gpu: no node has any", "add a node that has some")
    together = NoNodeHasAll("8 cpu and 8Gi memory", "n1", "has 4 cpu in all, wanted 8")
    assert str(together).endswith("memory together; n1 comes nearest: has 4 cpu in all, wanted 8")
    assert together.hint == "ask for no more than n1 has, or add a larger node"
    assert "at most 1 node," in TooFewNodes(3, 1, 5).hint
    assert "at most 2 nodes," in TooFewNodes(3, 2, 5).hint
    assert TooFewNodes(3, 0, 5).hint == "ask for less, or add nodes"


def test_a_licence_says_which_there_are() -> None:
    assert NoLicense("matlab", "there are 2", ["matlab", "ansys"]).hint.endswith("matlab, ansys")
    assert NoLicense("matlab", "unknown", []).hint == "name them in the settings"
    assert OverQuota("QuotaTasks", "no more").word == "QuotaTasks"
