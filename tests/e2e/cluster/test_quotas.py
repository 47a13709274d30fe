"""Quotas by the command line, on a real cluster: set, seen, kept to, told by why, over a restart."""

import json

from tests.e2e.cluster.harness import Home


def test_the_life_of_a_quota(fresh: Home) -> None:
    settings = fresh.directory.parent / "weights.yaml"
    settings.write_text("scheduler: {fairness: {weights: {default: 5, other: 3}}}\n")
    fresh.env["JARVIS_CONFIG"] = str(settings)
    fresh.jarvis("up", "--cpus", "4")
    fresh.jarvis("quota", "set", "other", "--cpus", "1")
    fresh.jarvis("quota", "set", "default", "--cpus", "2", "--running", "10", "--tasks", "4", "--weight", "2",
                 "--guaranteed-cpus", "1.5", "--mem", "4G", "--guaranteed-mem", "512")  # fmt: skip
    projects = json.loads(fresh.jarvis("project", "ls", "-o", "json").stdout)
    assert {one["project"]: one["weight"] for one in projects} == {"default": 2.0, "other": 3.0}, (
        "a quota's before the settings'"
    )
    fresh.jarvis("quota", "rm", "other")
    (quota,) = json.loads(fresh.jarvis("quota", "ls", "-o", "json").stdout)
    assert quota == {
        "project": "default", "user": "", "weight": 2.0, "running": 10, "tasks": 4, "resources": {"cpu": "2", "memory": "4Gi"},
        "guaranteed": {"cpu": "1.5", "memory": "512Mi"},
    }  # fmt: skip
    ids = [fresh.jarvis("submit", "-q", "-c", "1", "sleep", "60").stdout.strip() for _ in range(3)]
    told = json.loads(fresh.jarvis("why", ids[2], "-o", "json").stdout)
    assert told["reason"] == "QuotaProject", told
    refused = fresh.jarvis("submit", "-c", "3", "true", code=None)
    assert refused.returncode == 6
    assert "may have 2 cpu" in refused.stderr
    fresh.jarvis("submit", "-q", "sleep", "60")
    refused = fresh.jarvis("submit", "true", code=None)
    assert (refused.returncode, "4 tasks" in refused.stderr) == (6, True)
    fresh.jarvis("down", "--keep")
    fresh.jarvis("up", "--cpus", "4")
    assert "cpu=2" in fresh.jarvis("quota", "get", "default").stdout
    told = json.loads(fresh.jarvis("why", ids[2], "-o", "json").stdout)
    assert told["reason"] == "QuotaProject", told
    fresh.jarvis("quota", "rm", "default")
    missing = fresh.jarvis("quota", "get", "default", code=None)
    assert missing.returncode == 3
    assert "default" in fresh.jarvis("queue", "ls").stdout
    assert fresh.jarvis("project", "ls").returncode == 0
    assert fresh.jarvis("usage", "-u", "nobody").returncode == 0


def test_what_cannot_be_meant(up: Home) -> None:
    for words, said in (
        (("set", "p", "--cpus", "many"), "resources.cpu"),
        (("set", "p", "--resource", "licence"), "NAME=AMOUNT"),
        (("set", "p", "-u", "x", "--weight", "2"), "weights are of projects"),
        (("set", "p", "-u", "x", "--guaranteed-cpus", "2"), "guaranteed to projects"),
        (("set", "p", "--guaranteed-gpus", "some"), "guaranteed.gpu"),
        (("set", "p", "--cpus", "2", "--guaranteed-cpus", "3"), "guaranteed.cpu"),
        (("rm", "nobody-has-one"), "no quota of nobody-has-one"),
    ):
        refused = up.jarvis("quota", *words, code=None)
        assert refused.returncode != 0
        assert said in refused.stderr, refused.stderr
