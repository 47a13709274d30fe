"""Monitoring: how healthy the cluster is, what its nodes do, how tasks ended, and what Prometheus would be told."""

import jarvis


def main() -> None:
    with jarvis.local(cpus=2, nodes=3) as client:
        for answer in client.submit_many([{"command": ["true"]}] * 5 + [{"command": ["false"]}]):
            client.wait(answer["id"], 60)

        health = client.connection.get("/health")
        print(f"health: {health['status']}; nodes: {health['checks']['workers']['detail']}")
        for node in sorted(client.connection.get("/nodes")["items"], key=lambda node: str(node["name"])):
            print(f"{node['name']}: {node['state']}, {node['resources']['cpu']} processors")

        failed = next(iter(client.tasks(state="failed")))
        print(f"task {failed['id']} failed with exit code {client.show(failed['id'])['exit_code']}")
        metrics = client.connection.request("GET", "/metrics").text
        for line in metrics.splitlines():
            if line.startswith("jarvis_task_finished_total{"):
                print(line)


if __name__ == "__main__":
    main()
