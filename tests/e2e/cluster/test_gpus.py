"""Declared GPUs: each task sees its own indices, and no GPU is given twice at once."""

import pytest
from tests.e2e.cluster.harness import home, wait_for

from jarvis.sdk.client import Client

pytestmark = pytest.mark.timeout(120)


def first_line(client: Client, ident: int) -> str:
    return str(wait_for(lambda: client.logs(ident), "it has written").decode().strip())


def test_tasks_see_the_gpus_that_they_were_given() -> None:
    with home() as made:
        made.env["JARVIS_WORKER__GPUS"] = "2"
        made.jarvis("up")
        script = "echo gpus:$CUDA_VISIBLE_DEVICES; sleep 300"
        with made.client() as client:
            ids = [client.submit(command=["sh", "-c", script], resources={"cpu": 0.1, "gpu": 1}).id for _ in range(3)]
            wait_for(lambda: [client.show(i)["state"] for i in ids[:2]] == ["running"] * 2, "two of them run")
            seen = [first_line(client, ident) for ident in ids[:2]]
            assert sorted(seen) == ["gpus:0", "gpus:1"]
            assert "gpu" in made.jarvis("why", str(ids[2])).stdout
            client.act(ids[0], "cancel", grace=0)
            wait_for(lambda: client.show(ids[2])["state"] == "running", "the third has its turn")
            assert first_line(client, ids[2]) == seen[0]
            both = client.submit(command=["sh", "-c", "echo gpus:$CUDA_VISIBLE_DEVICES"], resources={"gpu": 2}).id
            none = client.submit(command=["sh", "-c", "echo gpus:$CUDA_VISIBLE_DEVICES"]).id
            assert client.wait(none, 30)["state"] == "succeeded"
            assert client.logs(none) == b"gpus:\n"
            for ident in ids[1:]:
                client.act(ident, "cancel", grace=0)
            assert client.wait(both, 30)["state"] == "succeeded"
            assert client.logs(both) == b"gpus:0,1\n"
        assert "gpu" in made.jarvis("submit", "--gpus", "3", "--", "true", code=None).stderr


def test_tasks_share_gpus_as_long_as_their_memory_fits() -> None:
    with home() as made:
        made.env |= {"JARVIS_WORKER__GPUS": "2", "JARVIS_WORKER__GPU_MEMORY": "24Gi,8Gi", "JARVIS_WORKER__CPUS": "8"}
        made.jarvis("up")
        script = "echo $CUDA_VISIBLE_DEVICES:$JARVIS_GPU_MEMORY; sleep 300"
        with made.client() as client:
            ids = [
                int(made.jarvis("submit", "-q", "--gpu-mem", size, "--", "sh", "-c", script).stdout)
                for size in ("8G", "20G", "6G")
            ]
            wait_for(lambda: [client.show(i)["state"] for i in ids[:2]] == ["running"] * 2, "two of them run")
            assert [first_line(client, i) for i in ids[:2]] == [f"1:{8 << 30}", f"0:{20 << 30}"]
            told = made.jarvis("why", str(ids[2])).stdout
            assert "GPU 0 has 4Gi of 24Gi free, GPU 1 has 0 of 8Gi free, wanted 6Gi on one" in told
            assert "4Gi gpu_memory instead of 6Gi starts now" in told
            fits = made.jarvis("plan", "--gpu-mem", "4G", "--", "true", code=0).stdout
            assert "starts now" in fits
            client.act(ids[0], "cancel", grace=0)
            wait_for(lambda: client.show(ids[2])["state"] == "running", "the third has its turn")
            assert first_line(client, ids[2]) == f"1:{6 << 30}"
            never = made.jarvis("submit", "--gpu-mem", "25G", "--", "true", code=None)
            assert never.returncode == 1 and "gpu_memory" in never.stderr and "24Gi" in never.stderr
            bad = made.jarvis("submit", "--gpu-mem", "much", "--", "true", code=None)
            assert bad.returncode == 1 and "resources.gpu_memory" in bad.stderr
            typed = made.jarvis("plan", "--gpus", "T4:1", "--", "true", code=None)
            assert "gpu.type" in typed.stdout + typed.stderr
            (node,) = client.connection.get("/nodes")["items"]
            assert (node["gpu_memory"], node["resources"]["gpu_memory"]) == (["24Gi", "8Gi"], "32Gi")


def test_the_metrics_of_the_brief_have_values() -> None:
    names = (
        "jarvis_task_submitted_total", "jarvis_task_finished_total", "jarvis_scheduler_queue_length",
        "jarvis_worker_cpu_usage_ratio", "jarvis_worker_memory_usage_bytes", "jarvis_task_execution_seconds_count",
        "jarvis_worker_available", "jarvis_api_request_seconds_count",
        "jarvis_scheduler_placement_seconds_count", "jarvis_state_sync_seconds_count", "jarvis_resource_utilization_ratio",
        "jarvis_worker_disk_written", "jarvis_worker_net_sent", "jarvis_worker_load1",
    )  # fmt: skip
    with home() as made:
        made.jarvis("up")
        with made.client() as client:
            client.wait(client.submit(command=["true"]).id, 30)
            client.submit(command=["sleep", "300"])

            def missing() -> list[str]:
                text = client.connection.request("GET", "/metrics").text
                values = {
                    line.split("{")[0].split(" ")[0]: line for line in text.splitlines() if not line.startswith("#")
                }
                counted = [values.get(n, "0.0") for n in names if n.endswith(("_total", "_count"))]
                return [n for n in names if n not in values] + [c for c in counted if c.endswith(" 0.0")]

            wait_for(lambda: not missing(), f"every metric has a value: {missing()}")
