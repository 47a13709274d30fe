"""Retry: a task that fails is tried again, each time after a longer pause, as often as it may be."""

import jarvis

FAILS_TWICE = ["sh", "-c", 'echo "attempt $JARVIS_ATTEMPT"; test "$JARVIS_ATTEMPT" -ge 3']


def main() -> None:
    with jarvis.local() as client:
        policy = {"max_attempts": 5, "backoff_strategy": "exponential", "backoff_base": 0.1}
        task = client.submit(command=FAILS_TWICE, retry=policy)
        ended = task.check(timeout=60)
        for attempt in client.connection.get(f"/tasks/{task.id}/attempts")["items"]:
            print(f"attempt {attempt['attempt']}: {attempt['state']}, exit code {attempt['exit_code']}")
        print(f"{ended['state']} after {ended['failures']} failures")


if __name__ == "__main__":
    main()
