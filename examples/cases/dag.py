"""DAG: numbers, the square of each of them side by side, and their sum; each step begins when those before it have ended."""

from typing import Any

import jarvis


@jarvis.task(cpus=0.5)
def numbers(count: int) -> list[int]:
    return list(range(count))


@jarvis.task(cpus=0.5)
def square(number: int) -> int:
    return number * number


@jarvis.task(cpus=0.5)
def total(parts: list[int]) -> int:
    return sum(parts)


@jarvis.workflow
def sum_of_squares(count: int) -> Any:
    return total(square.map(numbers(count)))


def main() -> None:
    with jarvis.local(cpus=2) as client:
        workflow = sum_of_squares.build(5).submit(client)
        print(f"result: {workflow.result(60)}")
        ended = sorted(workflow.steps(), key=lambda step: str(step["ended_at"]))
        print("order:", " ".join(step["path"] for step in ended if "[" not in step["path"]))
        print("elements:", sum("[" in step["path"] for step in ended))


if __name__ == "__main__":
    main()
