"""Keys, near, apart and prefer by the command line, on a real cluster."""

import json

from tests.e2e.cluster.harness import Home


def test_apart_by_the_command_line(up: Home) -> None:
    first = up.jarvis("submit", "-q", "--apart", "db", "--prefer", "zone=a:10", "sleep", "60").stdout.strip()
    second = up.jarvis("submit", "-q", "--apart", "db", "true").stdout.strip()
    near = up.jarvis("submit", "-q", "--near", "db", "true").stdout.strip()
    up.jarvis("wait", near)
    told = json.loads(up.jarvis("why", second, "-o", "json").stdout)
    assert told["reason"] == "AntiAffinity", told
    assert told["changes"][0].startswith("without being apart db it starts now"), told
    lonely = up.jarvis("submit", "-q", "--near", "nobody", "--key", "me", "true").stdout.strip()
    assert json.loads(up.jarvis("why", lonely, "-o", "json").stdout)["reason"] == "Affinity"
    up.jarvis("cancel", first, lonely)
    up.jarvis("wait", second)
    for words, said in (
        (("--near", "a b"), "near.0"), (("--apart", "db@"), "apart.0"), (("--apart", "db:101"), "from 1 to 100"),
        (("--key", "ü"), "keys.0"), (("--prefer", "zone=a:0"), "prefer.0"), (("--prefer", "=:5"), "prefer.0"),
    ):  # fmt: skip
        refused = up.jarvis("submit", *words, "true", code=None)
        assert refused.returncode != 0
        assert said in refused.stderr, refused.stderr
