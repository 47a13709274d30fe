"""The example with real data runs, and gives what awk says of the same file."""

import subprocess
from pathlib import Path

from tests.e2e.cluster.harness import Home

EXAMPLES = Path(__file__).parents[3] / "examples" / "workflows"


def test_the_shells_of_this_machine_are_counted_as_awk_counts_them(up: Home, tmp_path: Path) -> None:
    into = tmp_path / "it's here.csv"
    up.jarvis("workflow", "run", str(EXAMPLES / "passwd.yaml"), "-P", f"into={into}", "-P", "parts=4")
    program = '{count[$7]++} END {for (shell in count) print shell "," count[shell]}'
    said = subprocess.run(["awk", "-F:", program, "/etc/passwd"], capture_output=True, text=True, check=True).stdout
    assert into.read_text().splitlines() == sorted(said.splitlines())
