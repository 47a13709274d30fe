"""The container engine of this machine: where it is, whether it answers, and the few requests that tasks need."""

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import struct
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis.core.holdings import Holdings, whole_name
from jarvis.worker.container_exec import ContainerExec

if TYPE_CHECKING:
    from aiodocker import Docker

PROBE_S, IMAGES_S = 2.0, 5.0
ANSWER_MOST = 8 << 20
"""Bytes, as of the list of images."""
MISSING = "the client of the engine is missing: pip install 'jarvis-cluster[docker]'"
ENDS = "the node ends"
_INIT_PATH = f"{os.defpath}:/usr/local/bin:/sbin:/usr/sbin:/usr/libexec/docker:/usr/lib/docker"
_header = struct.Struct(">BxxxL")


class EngineError(Exception):
    """The engine said no (``status`` of HTTP), or could not be asked (0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def find_socket() -> Path | None:
    """The socket that DOCKER_HOST names, else the first of the usual ones. Only local engines: they share our files."""
    host = os.environ.get("DOCKER_HOST")
    if host:
        return Path(host.removeprefix("unix://")) if host.startswith("unix://") else None
    own = os.environ.get("XDG_RUNTIME_DIR")
    usual = ["/var/run/docker.sock", *([f"{own}/docker.sock"] if own else [])]
    return next((Path(path) for path in usual if os.access(path, os.W_OK)), None)


class Frames:
    """Cuts the engine's log into (stream, bytes). Each line is a frame of its own, so neighbours are put together."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """What has become complete with ``data``."""
        data = self._rest + data
        at, stream, parts = 0, 0, list[bytes]()
        while len(data) - at >= _header.size:
            of, size = _header.unpack_from(data, at)
            begin = at + _header.size
            if len(data) - begin < size:
                break
            if of != stream and parts:
                yield stream, b"".join(parts)
                parts = []
            stream, at = of, begin + size
            parts.append(data[begin:at])
        self._rest = data[at:]
        if parts:
            yield stream, b"".join(parts)


async def probe() -> str:
    """Why no containers can run here, or an empty text when they can. Costs next to nothing."""
    socket = find_socket()
    if socket is None:
        host = os.environ.get("DOCKER_HOST")
        return f"DOCKER_HOST is {host}, not a unix:// socket" if host else "no engine's socket that we may use"
    try:
        status, _ = await _get(socket, "/_ping", PROBE_S)
    except OSError as error:
        return f"no engine answers at {socket}: {str(error) or 'it takes too long'}"
    if b" 200 " not in status:
        return f"the engine at {socket} is not well: {status.decode(errors='replace').strip()}"
    if importlib.util.find_spec("aiodocker") is None:
        return MISSING
    return ""


class _Image(msgspec.Struct, gc=False, rename="pascal"):
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None
    size: int = 0


async def images() -> Holdings:
    """Bytes of each image by each of its names; none where no engine answers."""
    socket = find_socket()
    if socket is None:
        return {}
    try:
        status, body = await _get(socket, "/images/json", IMAGES_S)
        every = msgspec.json.decode(body, type=list[_Image]) if b" 200 " in status else []
    except (OSError, msgspec.DecodeError):
        return {}
    return {
        whole_name(name): image.size
        for image in every
        for name in (*(image.repo_tags or ()), *(image.repo_digests or ())) if not name.startswith("<none>")
    }  # fmt: skip


async def _get(socket: Path, path: str, within_s: float) -> tuple[bytes, bytes]:
    """The status and the body of the engine's answer; raises OSError. What each node with an engine asks all the time does not need
    the client library, which takes 8 MiB and 0.2 s of a node that may never run a container."""
    async with asyncio.timeout(within_s):
        reader, writer = await asyncio.open_unix_connection(str(socket), limit=ANSWER_MOST)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            return head.partition(b"\r\n")[0], b"".join([part async for part in _parts(reader, ANSWER_MOST)])
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise OSError("it answers with something else") from None
        finally:
            writer.close()


async def _parts(reader: asyncio.StreamReader, most: int) -> AsyncGenerator[bytes]:
    """To the end; what goes on beyond ``most`` bytes is broken off, and no answer then."""
    while most > 0 and (part := await reader.read(most)):
        most -= len(part)
        yield part


class Engine:
    """Requests to the engine; all raise :class:`EngineError`. Containers are named by name or id."""

    def __init__(self) -> None:
        self._client: Docker | None = None
        self._closed = False
        self._log_drivers: list[str] = []
        self.init = shutil.which("docker-init", path=_INIT_PATH) is not None
        """Whether the engine can put a small init before the task, so that signals have their usual effect."""

    async def ready(self) -> str:
        """As :func:`probe`; the client library, which takes a second to load, is here afterwards."""
        reason = await probe()
        if not reason:
            await asyncio.to_thread(importlib.import_module, "aiodocker")
        return reason

    async def log_config(self) -> dict[str, Any]:
        """A log that keeps every byte until the container is removed; ``json-file`` spoils what is not UTF-8."""
        if not self._log_drivers:
            with self._told():
                self._log_drivers = (await self._docker().system.info())["Plugins"]["Log"]
        if "local" not in self._log_drivers:
            return {}
        return {"Type": "local", "Config": {"max-size": "1024t", "max-file": "1", "compress": "false"}}

    async def list(self, label: str) -> list[dict[str, Any]]:
        """Containers with the label, ended ones too: Id, State, Labels."""
        with self._told():
            filters = json.dumps({"label": [label]})
            found = await self._docker().containers.list(all="true", filters=filters)
        return [{"Id": one.id, "State": one["State"], "Labels": one["Labels"]} for one in found]

    async def has_image(self, image: str) -> bool:
        try:
            with self._told():
                await self._docker().images.inspect(image)
        except EngineError as error:
            if error.status != 404:
                raise
            return False
        return True

    async def pull(self, image: str) -> None:
        with self._told():
            await self._docker().images.pull(image)

    async def create(self, name: str, config: dict[str, Any]) -> str:
        """The id of the new container."""
        with self._told():
            return (await self._docker().containers.create(config, name=name)).id

    async def start(self, container: str) -> None:
        with self._told():
            await self._docker().containers.container(container).start()

    async def signal(self, container: str, signum: int) -> None:
        with self._told():
            await self._docker().containers.container(container).kill(signal=str(signum))

    async def pause(self, container: str, wanted: bool) -> None:
        """Freeze or thaw everything in it; one that is so already is left alone."""
        one = self._docker().containers.container(container)
        try:
            with self._told():
                await (one.pause() if wanted else one.unpause())
        except EngineError as error:
            if error.status not in (409, 500):
                raise

    async def wait(self, container: str) -> None:
        """Until it does not run."""
        with self._told():
            await self._docker().containers.container(container).wait()

    async def inspect(self, container: str) -> dict[str, Any]:
        with self._told():
            return await self._docker().containers.container(container).show()

    async def remove(self, container: str) -> None:
        """Also if it runs; one that is gone, or on its way, is no error."""
        try:
            with self._told():
                await self._docker().containers.container(container).delete(force=True, v=True)
        except EngineError as error:
            if error.status not in (404, 409):
                raise

    async def output(self, container: str, follow: bool) -> AsyncGenerator[tuple[int, bytes]]:
        """(1 for stdout or 2 for stderr, bytes) from its first byte to what is there, or (``follow``) until it has ended.
        The client library's own reader decodes text; output is bytes."""
        docker = self._docker()
        with self._told():
            url = f"{docker.docker_host}/{docker.api_version}/containers/{container}/logs"
            params = {"stdout": "1", "stderr": "1", "follow": str(int(follow))}
            async with docker.session.get(url, params=params) as response:
                if response.status != 200:
                    raise EngineError(response.status, await response.text())
                frames = Frames()
                async for data in response.content.iter_any():
                    for piece in frames.feed(data):
                        yield piece

    async def execute(
        self, container: str, argv: Sequence[str], env: Mapping[str, str], pty: tuple[int, int] | None
    ) -> ContainerExec:
        """A command in a running container, started; ``pty``: rows and columns of its terminal."""
        with self._told():
            tty, variables = pty is not None, dict(env)
            made = (
                await self._docker()
                .containers.container(container)
                .exec(list(argv), stdin=True, tty=tty, environment=variables)
            )
            stream = made.start(detach=False)
            await stream.__aenter__()
            running = ContainerExec(made, stream, tty)
            if pty is not None:
                await running.resize(*pty)
            return running

    async def close(self) -> None:
        """Whoever asks from now on is told that nothing answers."""
        self._closed = True
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()
            await client.connector.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The client library's errors as ours. It is imported with the first container: it is large, and may be missing."""
        try:
            import aiohttp
            from aiodocker.exceptions import DockerError
        except ImportError:
            raise EngineError(0, MISSING) from None
        try:
            yield
        except DockerError as error:
            raise EngineError(error.status, error.message) from None
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise EngineError(0, f"the container engine does not answer: {error}") from None
        except AssertionError:  # how the client library tells a request that its connections were closed meanwhile
            if not self._closed:
                raise
            raise EngineError(0, ENDS) from None

    def _docker(self) -> "Docker":
        if self._closed:
            raise EngineError(0, ENDS)
        if self._client is None:
            import aiodocker
            import aiohttp

            socket = find_socket()
            if socket is None:
                raise EngineError(0, "there is no container engine any more")
            # Each running container holds connections, so there is no limit on them.
            connector = aiohttp.UnixConnector(str(socket), limit=0)
            self._client = aiodocker.Docker(url="unix://localhost", connector=connector)
        return self._client
