"""Priority: of tasks that wait for the same processor, the most urgent one starts first, whatever came first."""

import tempfile
from pathlib import Path

import jarvis


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, jarvis.local(cpus=1) as client:
        go = Path(folder) / "go"
        client.submit(command=["sh", "-c", 'until [ -e "$0" ]; do sleep 0.05; done', str(go)])
        names, ledger = ("low", "normal", "high", "critical"), Path(folder) / "ledger"
        note = ["sh", "-c", 'echo $JARVIS_NAME >> "$0"', str(ledger)]
        answers = client.submit_many([{"command": note, "name": name, "priority": name} for name in names])
        go.touch()
        for answer in answers:
            client.wait(answer["id"], 60)
        print("submitted:", *names)
        print("ran:", *ledger.read_text().split())


if __name__ == "__main__":
    main()
