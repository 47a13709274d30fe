"""Manifests in the blob store: read with all that is checked, and their pieces beside what refers to them."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from jarvis.core.errors import InvalidValue, NotFound
from jarvis.core.manifest import MAX_MANIFEST, Manifest, decode, matches_digest
from jarvis.state.blob_store import BlobStore

AT_ONCE = 64 * 1024
"""A manifest of more bytes is read beside the event loop: it may take a tenth of a second."""
RECENT = 8


async def read_manifest(blobs: BlobStore, project: str, digest: str) -> Manifest:
    """Raises :class:`NotFound` where there is none, and :class:`InvalidValue` for what is damaged or was never one."""
    size = await blobs.size(project, digest)
    if size > MAX_MANIFEST:
        raise InvalidValue("manifest", f"{size} bytes", f"a list of at most {MAX_MANIFEST} bytes")
    data = await blobs.get(project, digest)
    if size <= AT_ONCE:
        return _checked(data, digest)
    return await asyncio.to_thread(_checked, data, digest)


def _checked(data: bytes, digest: str) -> Manifest:
    if not matches_digest(data, digest):
        raise InvalidValue("manifest", digest, "undamaged: its bytes have another checksum")
    return decode(data)


class RecentManifests:
    """Those that were asked for last, so that who fetches many files one by one has their list read once."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._known: OrderedDict[tuple[str, str], Manifest] = OrderedDict()

    async def get(self, project: str, digest: str) -> Manifest:
        """As :func:`read_manifest`; one that has gone meanwhile is not given from memory."""
        key = project, digest
        if (known := self._known.pop(key, None)) is None:
            known = await read_manifest(self._blobs, project, digest)
        else:
            await self._blobs.size(project, digest)
        self._known[key] = known
        while len(self._known) > RECENT:
            self._known.popitem(last=False)
        return known


async def pieces_of(blobs: BlobStore, project: str, manifests: Iterable[str]) -> set[str]:
    """Digests of all pieces that these manifests list. One that is lost or damaged leads to nothing any more."""
    found: set[str] = set()
    for digest in manifests:
        try:
            found |= (await read_manifest(blobs, project, digest)).pieces
        except (NotFound, InvalidValue):
            continue
    return found
