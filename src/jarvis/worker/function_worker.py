"""The program of a warm process: runs Python functions one after another, each result in its spool before it is answered.

Started by the supervisor as the task's owner. One thread reads the agent's frames; the main thread runs the calls, so
that a function may use signals and anything else that wants the main thread.
"""

import io
import os
import pickle
import queue
import resource
import socket
import struct
import sys
import threading
import time
import traceback
from typing import Any

import cloudpickle
import msgspec

_length = struct.Struct(">I")
CALL, ACK = 0, 1
STATE, RESULT = 0, 1
SPOOL_LIMIT = 1 << 20


class Worker:
    """State shared by the two threads; ``lock`` guards everything but the calls themselves."""

    def __init__(self, directory: int, name: str) -> None:
        self.lock = threading.Lock()
        self.calls: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self.queued: list[int] = []
        self.current = 0
        self.unacked: dict[int, bytes] = {}
        self.peer: socket.socket | None = None
        self.code: dict[str, Any] = {}
        self.spool = open(f"/proc/self/fd/{directory}/{name}.spool", "ab", buffering=0)  # noqa: SIM115 - for life
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"/proc/self/fd/{directory}/{name}.sock")
        self.listener.listen(2)

    # ------------------------------------------------------------ the reading thread

    def serve(self) -> None:
        """Talk to one agent at a time; a new one replaces the one before."""
        while True:
            peer, _ = self.listener.accept()
            with self.lock:
                self.peer = peer
                state = [STATE, self.current, list(self.queued), list(self.unacked)]
                _send(peer, msgspec.msgpack.encode(state))
                for result in self.unacked.values():
                    _send(peer, result)
            self.read(peer)

    def read(self, peer: socket.socket) -> None:
        stream = io.BufferedReader(socket.SocketIO(peer, "r"), 1 << 16)
        while (frame := _receive(stream)) is not None:
            message = msgspec.msgpack.decode(frame)
            if message[0] == CALL:
                with self.lock:
                    self.queued.append(message[1])
                self.calls.put(message)
            else:
                self.acknowledged(message[1])

    def acknowledged(self, numbers: list[int]) -> None:
        with self.lock:
            for number in numbers:
                self.unacked.pop(number, None)
            if not self.unacked and self.spool.tell() > SPOOL_LIMIT:
                self.spool.truncate(0)

    # ------------------------------------------------------------ the main thread

    def run(self) -> None:
        while (call := self.calls.get()) is not None:
            with self.lock:
                self.current = call[1]
                self.queued.remove(call[1])
            self.answer(call)

    def answer(self, call: list[Any]) -> None:
        _, number, _, digest, code, args, env = call
        begin, before, offset = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF), _log_size()
        os.environ.update(env)
        ok, payload, name, message = self.call(digest, code, args)
        _flush()
        after = resource.getrusage(resource.RUSAGE_SELF)
        result = msgspec.msgpack.encode(
            [
                RESULT, number, ok, payload, name, message, time.monotonic() - begin,
                after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, after.ru_maxrss * 1024,
                offset, _log_size(),
            ]
        )  # fmt: skip
        with self.lock:
            self.spool.write(_length.pack(len(result)) + result)
            self.unacked[number] = result
            self.current = 0
            if self.peer is not None:
                _send(self.peer, result)

    def call(self, digest: str, code: bytes | None, args: bytes) -> tuple[bool, bytes, str, str]:
        """(succeeded, pickled result or exception, class of the exception, its text)"""
        try:
            if code is not None:
                self.code[digest] = cloudpickle.loads(code)
            positional, named = pickle.loads(args)
            value = self.code[digest](*positional, **named)
            return True, _dump(value), "", ""
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is its result
            return False, _dump_exception(error), type(error).__name__, f"{type(error).__name__}: {error}"[:2000]


def _dump(value: object) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - lambdas, local classes: the slower pickler knows them
        return bytes(cloudpickle.dumps(value, protocol=5))


def _dump_exception(error: BaseException) -> bytes:
    """The exception and the text of its traceback; one that cannot be pickled is described instead."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
        error = RuntimeError(f"the function raised {type(error).__name__}({error})")
    try:
        data = _dump((error.with_traceback(None), text))
        pickle.loads(data)
        return data
    except Exception:  # noqa: BLE001 - see above
        return _dump((RuntimeError(f"{type(error).__name__}: {error}"), text))


def _log_size() -> int:
    return os.fstat(1).st_size


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue


def _send(peer: socket.socket, frame: bytes) -> None:
    """To an agent that may be gone: what it misses is said again to the next."""
    try:
        peer.sendall(_length.pack(len(frame)) + frame)
    except OSError:
        return


def _receive(stream: "io.BufferedReader[Any]") -> bytes | None:
    try:
        head = stream.read(4)
        if len(head) < 4:
            return None
        (size,) = _length.unpack(head)
        frame = stream.read(size)
    except OSError:
        return None
    return frame if len(frame) == size else None


def main() -> None:
    directory = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
    worker = Worker(directory, sys.argv[2])
    threading.Thread(target=worker.serve, daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main()
