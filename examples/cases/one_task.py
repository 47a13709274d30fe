"""One task: hand it over, wait for its end, read what it printed."""

import jarvis


def main() -> None:
    with jarvis.local() as client:
        task = client.submit(command=["echo", "hello from a task"])
        ended = task.check(timeout=60)
        print(f"task {task.id} {ended['state']} with exit code {ended['exit_code']}")
        print(f"it printed: {task.logs().decode().strip()}")


if __name__ == "__main__":
    main()
