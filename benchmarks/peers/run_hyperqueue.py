"""HyperQueue: its own local cluster, tasks that run a program and write their output to files as it does by default."""

from __future__ import annotations

from hyperqueue import Job
from hyperqueue.cluster import LocalCluster, WorkerConfig
from protocol import arguments, tell, timed

mode, count, workers, directory = arguments()


def job_of(many: int) -> Job:
    job = Job(default_workdir=str(directory / "out"))
    for _ in range(many):
        job.program(["true"], stdout=str(directory / "out" / "%{TASK_ID}.out"), stderr=None)
    return job


with LocalCluster(str(directory / "hq"), WorkerConfig(cores=workers)) as cluster:
    client = cluster.client()
    client.wait_for_jobs([client.submit(job_of(20))])
    tell(timed(lambda: client.wait_for_jobs([client.submit(job_of(count))]), count))
