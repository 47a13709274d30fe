"""GPUs as the command line asks for them: by number, type, fraction and memory, in Jarvis's words and in Slurm's."""

from typing import Any

import click
import pytest

from jarvis.cli.options import task_fields


def fields(**given: Any) -> dict[str, Any]:
    return task_fields(given, {}, "/here")


@pytest.mark.parametrize(
    ("given", "gpu", "kind"),
    [
        ({"gpus": "2"}, "2", None),
        ({"gpus": "0.5"}, "0.5", None),
        ({"gpus": "V100M16:2"}, "2", "V100M16"),
        ({"gpus": "NVIDIA A100: 80GB:1"}, "1", "NVIDIA A100: 80GB"),
        ({"gres": "gpu"}, "1", None),
        ({"gres": "gpu:3"}, "3", None),
        ({"gres": "gpu:a100"}, "1", "a100"),
        ({"gres": "gpu:a100:4"}, "4", "a100"),
    ],
)
def test_number_and_type(given: dict[str, str], gpu: str, kind: str | None) -> None:
    made = fields(**given, constraints=("zone=a",))
    assert made["resources"]["gpu"] == gpu
    assert made["constraints"] == ["zone=a"] + ([f"gpu.type={kind}"] if kind else [])


@pytest.mark.parametrize(("size", "bytes_"), [("8G", "8Gi"), ("512M", "512Mi"), ("4096", "4096Mi"), ("8Gi", "8Gi")])
def test_memory(size: str, bytes_: str) -> None:
    assert fields(gpu_mem=size)["resources"] == {"cpu": 1, "gpu_memory": bytes_}


@pytest.mark.parametrize("text", ["shard:1", "gpu:1,tpu:2", "craynetwork"])
def test_what_is_no_gpu_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match="--gres"):
        fields(gres=text)
