"""Manifests in the blob store: read with all that is checked, and their pieces beside what refers to them."""

from collections.abc import Iterable

from jarvis.core.errors import InvalidValue, NotFound
from jarvis.core.manifest import MAX_MANIFEST, Manifest, decode, matches_digest
from jarvis.state.blob_store import BlobStore


async def read_manifest(blobs: BlobStore, project: str, digest: str) -> Manifest:
    """Raises :class:`NotFound` where there is none, and :class:`InvalidValue` for what is damaged or was never one."""
    size = await blobs.size(project, digest)
    if size > MAX_MANIFEST:
        raise InvalidValue("manifest", f"{size} bytes", f"a list of at most {MAX_MANIFEST} bytes")
    data = await blobs.get(project, digest)
    if not matches_digest(data, digest):
        raise InvalidValue("manifest", digest, "undamaged: its bytes have another checksum")
    return decode(data)


async def pieces_of(blobs: BlobStore, project: str, manifests: Iterable[str]) -> set[str]:
    """Digests of all pieces that these manifests list. One that is lost or damaged leads to nothing any more."""
    found: set[str] = set()
    for digest in manifests:
        try:
            found |= (await read_manifest(blobs, project, digest)).pieces
        except (NotFound, InvalidValue):
            continue
    return found
