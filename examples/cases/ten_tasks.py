"""Ten tasks over three nodes: ``balancer: spread`` puts each where the least runs."""

from collections import Counter

import jarvis

SAY_WHERE = ["sh", "-c", "echo $JARVIS_NODE; sleep 0.5"]


def main() -> None:
    with jarvis.local(cpus=2, nodes=3) as client:
        answers = client.submit_many([{"command": SAY_WHERE, "balancer": "spread"}] * 10)
        states = Counter(client.wait(answer["id"], 60)["state"] for answer in answers)
        where = Counter(client.logs(answer["id"]).decode().strip() for answer in answers)
        print(f"{states['succeeded']} of {len(answers)} succeeded")
        for node, count in sorted(where.items()):
            print(f"{node} ran {count}")


if __name__ == "__main__":
    main()
