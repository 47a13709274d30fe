"""What nodes hold of what tasks need: container images by their whole names, pushed files by the digests of their manifests.

A node tells the largest things alone, and not many: what is small is fetched sooner than it is looked for.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from jarvis.core.task import TaskSpec

Holdings = dict[str, int]
"""Bytes by name; a name with a ``/`` is that of an image, one without it a digest."""

HELD_LEAST = 16 << 20
"""Bytes below which nothing is told."""
HELD_MOST = 128
"""Things that a node tells of."""
NEEDS_MOST = 16
"""Names by which a task is placed."""
SIZE_MOST = 1 << 50
_NAME = re.compile(r"[!-~]{1,300}\Z")
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}\Z")
HUB = "docker.io"


def worth_telling(found: Mapping[str, int]) -> Holdings:
    """Of what lies on a node, the largest; of what a node says, as much of it as may be believed."""
    large = [(-min(size, SIZE_MOST), name) for name, size in found.items() if size >= HELD_LEAST and _NAME.match(name)]
    return {name: -size for size, name in sorted(large)[:HELD_MOST]}


def needs(spec: TaskSpec) -> tuple[str, ...]:
    """What it needs of what nodes may hold already."""
    image = () if spec.container is None else (whole_name(spec.container.image),)
    return (*image, *spec.push)[:NEEDS_MOST] if spec.push else image


@lru_cache(1024)
def whole_name(image: str) -> str:
    """The one name of all that engines take for the same: ``alpine`` is ``docker.io/library/alpine:latest``. A digest says more
    than a tag, and is kept alone; the id of an image is left as it is."""
    if _IMAGE_ID.match(image):
        return image
    rest, _, digest = image.partition("@")
    registry, slash, path = rest.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, path = HUB, rest
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = HUB
    if registry == HUB and "/" not in path:
        path = f"library/{path}"
    folder, slash, last = path.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{registry}/{folder}{slash}{name}" + (f"@{digest}" if digest else f":{tag or 'latest'}")


def shown(name: str) -> str:
    """As people know it: images as they write them, files by the beginning of their digest."""
    if "/" not in name:
        return f"files {name[:12]}"
    return "image " + name.removeprefix(f"{HUB}/library/").removeprefix(f"{HUB}/").removesuffix(":latest")
