"""Licences by the command line, on a real cluster: counted over a restart, told, listed, refused."""

import json

from tests.e2e.cluster.harness import Home


def test_the_life_of_a_licence(fresh: Home) -> None:
    settings = fresh.directory.parent / "licences.yaml"
    settings.write_text("scheduler: {licenses: {matlab: 2, ansys: 1}}\n")
    fresh.env["JARVIS_CONFIG"] = str(settings)
    fresh.jarvis("up", "--cpus", "4")
    holder = fresh.jarvis("submit", "-q", "-L", "matlab:2", "sleep", "60").stdout.strip()
    script = fresh.directory.parent / "script.sh"
    script.write_text("#!/bin/sh\n#SBATCH -L matlab,ansys\ntrue\n")
    waiting = fresh.jarvis("submit", "-q", str(script)).stdout.strip()
    plan = fresh.jarvis("plan", "-L", "matlab", "true", code=None)
    assert plan.returncode == 1, plan.stdout + plan.stderr
    fresh.jarvis("down", "--keep")
    fresh.jarvis("up", "--cpus", "4")
    told = json.loads(fresh.jarvis("why", waiting, "-o", "json").stdout)
    assert told["reasons"][0] == {
        "reason": "Licenses", "text": f"2 of 2 matlab are in use by task {holder} (2), wanted 1",
    }  # fmt: skip
    rows = json.loads(fresh.jarvis("license", "ls", "-o", "json").stdout)
    assert rows == [
        {"license": "ansys", "total": 1, "used": 0, "free": 1, "tasks": []},
        {"license": "matlab", "total": 2, "used": 2, "free": 0, "tasks": [int(holder)]},
    ]
    assert "matlab" in fresh.jarvis("license", "ls").stdout
    for asked, said in (
        ("mathlab", "ansys, matlab"),
        ("matlab:3", "there are 2 matlab in all"),
        ("matlab:x", "NAME:COUNT"),
    ):
        refused = fresh.jarvis("submit", "-L", asked, "true", code=None)
        assert refused.returncode != 0
        assert said in refused.stderr, refused.stderr
    fresh.jarvis("cancel", holder)
    fresh.jarvis("wait", waiting)
    fresh.jarvis("down", "--keep")
    assert "all the same" in fresh.jarvis("replay").stdout
