"""What nodes hold: names that mean the same are one name, and what is told is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis.core.holdings import HELD_LEAST, HELD_MOST, NEEDS_MOST, SIZE_MOST, needs, shown, whole_name, worth_telling
from jarvis.core.task import Container, TaskSpec

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("library/alpine", "docker.io/library/alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine:latest", "docker.io/library/alpine:latest"),
        ("nvidia/cuda:12.4", "docker.io/nvidia/cuda:12.4"),
        ("quay.io/org/deep/tool", "quay.io/org/deep/tool:latest"),
        ("localhost/own", "localhost/own:latest"),
        ("registry:5000/own:v1", "registry:5000/own:v1"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        (f"alpine:3.20@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        (f"ghcr.io/a/b@{DIGEST}", f"ghcr.io/a/b@{DIGEST}"),
        (DIGEST, DIGEST),
    ],
)
def test_an_image_has_one_name(image: str, name: str) -> None:
    assert whole_name(image) == name
    assert whole_name(name) == name


@given(st.from_regex(r"[a-z0-9.:/_-]{1,40}(@sha256:[0-9a-f]{64})?", fullmatch=True))
def test_a_whole_name_stays_as_it_is(image: str) -> None:
    assert whole_name(whole_name(image)) == whole_name(image)


def test_what_a_task_needs() -> None:
    assert needs(TaskSpec(name="t")) == ()
    image = TaskSpec(name="t", container=Container("alpine"))
    assert needs(image) == ("docker.io/library/alpine:latest",)
    both = TaskSpec(name="t", container=Container("alpine"), push=("aa", "bb"))
    assert needs(both) == ("docker.io/library/alpine:latest", "aa", "bb")
    many = TaskSpec(name="t", push=tuple(str(n) for n in range(100)))
    assert needs(many) == many.push[:NEEDS_MOST]


def test_only_what_is_large_is_told_and_the_largest_first() -> None:
    found = {f"n{at:03}": HELD_LEAST + at // 2 for at in range(HELD_MOST + 20)} | {"small": HELD_LEAST - 1}
    told = worth_telling(found)
    assert len(told) == HELD_MOST
    assert "small" not in told
    assert next(iter(told)) == f"n{HELD_MOST + 18:03}"
    assert min(told.values()) >= HELD_LEAST + 9


def test_a_node_is_not_believed_everything() -> None:
    said = {
        "a": SIZE_MOST * 9,
        "b": -5,
        "": HELD_LEAST,
        "with space": HELD_LEAST,
        "x" * 301: HELD_LEAST,
        "ü": HELD_LEAST,
    }
    assert worth_telling(said) == {"a": SIZE_MOST}


def test_people_see_what_they_wrote() -> None:
    assert [shown(whole_name(n)) for n in ("alpine", "nvidia/cuda:12.4", "quay.io/a/b")] == [
        "image alpine", "image nvidia/cuda:12.4", "image quay.io/a/b",
    ]  # fmt: skip
    assert shown("0123456789abcdef") == "files 0123456789ab"
