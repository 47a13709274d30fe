"""The program of a warm process: runs Python functions one after another, each result in its spool before it is answered.

Started by the supervisor as the task's owner. The main thread runs the calls, so that a function may use signals and
anything else that wants it; a second thread reads what the agent says, and a third sends results that would otherwise
wait behind a slow call.
"""

import os
import pickle
import resource
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any

import cloudpickle
import msgspec

from jarvis.core.effects import Assignment
from jarvis.core.task import TaskSpec
from jarvis.worker import function_protocol as protocol
from jarvis.worker.alike_specs import SpecReader
from jarvis.worker.function_protocol import Call, Place, Result, frame
from jarvis.worker.function_spool import Spool
from jarvis.worker.machine import Work
from jarvis.worker.step_inputs import as_json, supplied
from jarvis.worker.task_environment import FOLDER, Where, environment

INLINE = 4096
GATHER_S = 0.001
"""How long a finished result may wait for more of them."""
LATE_S = 0.005
"""How long it may wait when the next call turns out to be slow: looking more often would cost more than the calls."""
SMALL_S = 0.001
"""Calls shorter than this are charged by the clock: asking the kernel would cost more than most of them."""
COMPACT_AT = 4 << 20
MARK = "JARVIS_SUPERVISED"
"""By this variable the supervisor knows its processes; it stays whatever a call's environment is."""


class Worker:
    """State shared by the threads; ``lock`` guards everything but the call itself."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lock = threading.Lock()
        self.wake = threading.Condition(self.lock)
        self.pending = threading.Event()
        self.calls: deque[Call] = deque()
        self.current: Assignment | None = None
        self.done = self.log_start = self.log_end = 0
        self.unacked: dict[int, bytes] = {}
        self.unsent: list[bytes] = []
        self.sending = threading.Lock()
        self.peer: socket.socket | None = None
        self.code: dict[str, Any] = {}
        self.bodies: dict[str, bytes] = {}
        """Stored results for the next call, by digest."""
        self.specs = SpecReader()
        self.environment = Environment(place)
        self.used = Used()
        self.first_unsent = 0.0
        self.folder = os.open(place.folder, os.O_RDONLY | os.O_DIRECTORY)
        self.spool = self._open_spool("spool")
        self.log = os.open("log", os.O_RDONLY, dir_fd=self.folder)
        self.listener = self._listen()

    def _open_spool(self, name: str) -> Spool:
        return Spool(name, lambda path, flags: os.open(path, flags, 0o600, dir_fd=self.folder))

    def _listen(self) -> socket.socket:
        """Bound under another name first: who finds the socket can connect to it."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"/proc/self/fd/{self.folder}/.sock")
        listener.listen(4)
        os.rename(".sock", "sock", src_dir_fd=self.folder, dst_dir_fd=self.folder)
        return listener

    # ------------------------------------------------------------ the reading thread

    def serve(self) -> None:
        """Talk to one agent at a time; a new one replaces the one before."""
        while True:
            peer, _ = self.listener.accept()
            if _uid_of(peer) not in (os.getuid(), 0):
                peer.close()
                continue
            self.greet(peer)
            try:
                self.read(peer)
            except (OSError, protocol.FrameError, ValueError):
                pass
            with self.lock:
                self.peer = None
            peer.close()

    def greet(self, peer: socket.socket) -> None:
        with self.sending, self.lock:
            state = protocol.State(self.current, [call.assignment for call in self.calls], self.done, len(self.unacked))
            self.unsent.clear()
            data = frame(protocol.STATE, state) + b"".join(self.unacked.values())
            self.peer = peer
        self.send(peer, data)

    def read(self, peer: socket.socket) -> None:
        frames = protocol.Frames()
        while data := peer.recv(1 << 18):
            calls: list[Call] = []
            acknowledged: list[int] = []
            for kind, body in frames.feed(data):
                if kind == protocol.CALL:
                    calls.append(protocol.decode_call(body))
                elif kind == protocol.BODY:
                    given = protocol.decode_body(body)
                    self.bodies[given.digest] = given.data
                elif kind == protocol.WITHDRAW:
                    self.withdraw(set(protocol.decode_numbers(body)))
                elif kind == protocol.ACK:
                    acknowledged += protocol.decode_numbers(body)
                elif kind == protocol.STOP:
                    self.stop(protocol.decode_numbers(body)[0])
            if calls:
                with self.lock:
                    self.calls.extend(calls)
                    self.wake.notify()
            if acknowledged:  # nobody waits for that
                self.acknowledged(acknowledged)

    def withdraw(self, numbers: set[int]) -> None:
        """Give back those that have not begun. The answer keeps its place among the results: from their order the agent
        knows which call runs."""
        with self.lock:
            taken = [call.assignment.number for call in self.calls if call.assignment.number in numbers]
            self.calls = deque(call for call in self.calls if call.assignment.number not in numbers)
            self.unsent.append(frame(protocol.WITHDRAWN, taken))
        self.flush()

    def acknowledged(self, numbers: list[int]) -> None:
        with self.lock:
            for number in numbers:
                self.unacked.pop(number, None)
            if not self.unacked:
                self.spool.clear()
                if self.current is None and self.log_end:
                    os.ftruncate(1, 0)
                    self.log_end = 0
            elif self.spool.used > COMPACT_AT and 2 * sum(map(len, self.unacked.values())) < self.spool.used:
                self.compact()

    def compact(self) -> None:
        """Write what is unacknowledged to a new spool and put it in the place of the old one."""
        fresh = self._open_spool(".spool")
        for data in self.unacked.values():
            fresh.add(data)
        if self.current is not None:
            fresh.begin(self.current.number, self.current.token, self.log_start)
        os.rename(".spool", "spool", src_dir_fd=self.folder, dst_dir_fd=self.folder)
        old, self.spool = self.spool, fresh
        old.close()

    def stop(self, number: int) -> None:
        """The agent wants this call ended; if another one runs by now, the end is on its way already."""
        with self.lock:
            if self.current is not None and self.current.number == number:
                os.kill(os.getpid(), signal.SIGKILL)

    # ------------------------------------------------------------ the sending thread

    def send_late(self) -> None:
        """Results do not wait longer than a moment behind a call that turned out to be slow."""
        while True:
            self.pending.wait()
            self.pending.clear()
            time.sleep(LATE_S)
            self.flush()

    def flush(self) -> None:
        with self.sending:
            with self.lock:
                data, self.unsent = self.unsent, []
                peer = self.peer
            if data and peer is not None:
                self.send(peer, b"".join(data))

    def send(self, peer: socket.socket, data: bytes) -> None:
        """To an agent that may be gone: what it misses is said again to the next."""
        try:
            peer.sendall(data)
        except OSError:
            return

    # ------------------------------------------------------------ the main thread

    def run(self) -> None:
        """Until killed."""
        call = self.wait()
        while True:
            call = self.answer(call) or self.wait()

    def wait(self) -> Call:
        """For the next call, when none has come yet."""
        self.flush()
        with self.lock:
            while (call := self.begin()) is None:
                self.wake.wait()
        return call

    def begin(self) -> Call | None:
        """The next call becomes the current one, if there is any; the lock is held."""
        self.log_start = self.log_end
        if not self.calls:
            self.current = None
            return None
        call = self.calls.popleft()
        self.current = call.assignment
        self.spool.begin(call.assignment.number, call.assignment.token, self.log_start)
        return call

    def answer(self, call: Call) -> Call | None:
        """Run it; the result is kept, and the next call is current, before anything is told."""
        begin = time.perf_counter()
        result = self.call(call)
        now = time.perf_counter()
        result.wall_s = now - begin
        _flush_streams()
        self.used.charge(result)
        self.take_output(result)
        data = frame(protocol.RESULT, result)
        with self.lock:
            self.spool.add(data)
            self.unacked[result.number] = data
            self.done += 1
            first = not self.unsent
            if self.peer is not None:
                self.unsent.append(data)
            following = self.begin()
            if following is None:
                self.spool.begin(0, 0, 0)
        if first:
            self.first_unsent = now
            if following is not None:  # else it is sent before this thread waits for another
                self.pending.set()
        if result.wall_s > GATHER_S or now - self.first_unsent > GATHER_S:
            self.flush()
        return following

    def take_output(self, result: Result) -> None:
        self.log_end = os.fstat(1).st_size
        result.log_start, result.log_end = self.log_start, self.log_end
        size = result.log_end - result.log_start
        if 0 < size <= INLINE:
            result.output = os.pread(self.log, size, result.log_start)

    def call(self, call: Call) -> Result:
        a = call.assignment
        ok, name, message, shown = True, "", "", b""
        try:
            spec, args = self.specs.read(bytes(a.spec))
            self.environment.set(a, spec)
            function = spec.function
            assert function is not None
            if call.code is not None:
                self.code[function.code] = cloudpickle.loads(call.code)
            positional, named = pickle.loads(call.args if call.args is not None else args or b"")
            if function.inputs:
                bodies, self.bodies = (
                    self.bodies,
                    {},
                )  # those of the next call come when the agent has this one's result
                positional = supplied(positional, function.inputs, bodies)
                named = supplied(named, function.inputs, bodies)
                del bodies
            value = self.code[function.code](*positional, **named)
            payload = _dump(value)
            if spec.origin is not None:
                shown = as_json(value)
            if len(payload) > protocol.RESULT_LIMIT:
                raise ValueError(
                    f"the result has {len(payload)} bytes pickled, more than {protocol.RESULT_LIMIT}: "
                    "write it to a file and return its path"
                )
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is its result
            ok, payload = False, _dump_exception(error)
            name, message = type(error).__name__, f"{type(error).__name__}: {error}"[:2000]
        return Result(a.number, a.token, ok, payload, name, message, json=shown if ok else b"")


class Used:
    """What each call used of this process. Small calls are charged by the clock; what they took is not charged again."""

    def __init__(self) -> None:
        self._before = resource.getrusage(resource.RUSAGE_SELF)
        self._charged = 0.0
        self._max_rss = self._before.ru_maxrss * 1024

    def charge(self, result: Result) -> None:
        if result.wall_s < SMALL_S:
            self._charged += result.wall_s
            result.user_s, result.max_rss = result.wall_s, self._max_rss
            return
        after = resource.getrusage(resource.RUSAGE_SELF)
        result.user_s = max(after.ru_utime - self._before.ru_utime - self._charged, 0.0)
        result.system_s = after.ru_stime - self._before.ru_stime
        result.max_rss = self._max_rss = after.ru_maxrss * 1024
        self._before, self._charged = after, 0.0


class Environment:
    """JARVIS_* and the client's variables, set for a call. Most calls differ from the one before by their id alone."""

    def __init__(self, place: Place) -> None:
        scratch = f"{place.folder}/scratch"
        self._where = Where(place.node, place.home, place.user, place.shell, scratch, 0.0, place.api_url)
        self._shares = place.shares
        self._base = {name: os.environ[name] for name in (MARK,) if name in os.environ}
        self._now = dict(os.environ)
        self._last: TaskSpec | None = None
        self._owner: tuple[str, str] = ("", "")
        self._cwd = self._start = os.getcwd()
        self._own = f"{place.folder}/{FOLDER}"
        """The directory of a call that has one of its own, which is alone in its process."""

    def set(self, a: Assignment, spec: TaskSpec) -> None:
        plain = not a.restart and a.deadline_s is None and spec.array is None
        last = self._last
        if (
            plain
            and last is not None
            and (spec is last or _sets_the_same(spec, last))
            and self._owner == (a.project, a.user)
        ):
            self._set(
                {"JARVIS_TASK_ID": str(a.task), "JARVIS_ATTEMPT": str(a.attempt), "JARVIS_FENCING_TOKEN": str(a.token)}
            )
            return
        self._where.now = time.time()
        wanted = self._base | environment(Work(a, spec, self._shares), self._where)
        for name in self._now.keys() - wanted.keys():
            os.environ.pop(name, None)
            del self._now[name]
        self._set(wanted)
        self._enter(os.path.join(self._own, spec.cwd or "") if spec.own_directory else spec.cwd or self._start)
        self._last, self._owner = (spec if plain else None), (a.project, a.user)

    def _set(self, wanted: dict[str, str]) -> None:
        now = self._now
        for name, value in wanted.items():
            if now.get(name) != value:
                os.environ[name] = now[name] = value

    def _enter(self, directory: str) -> None:
        """The directory of the call; absent here is its failure, never another directory silently."""
        if directory == self._cwd:
            return
        try:
            os.chdir(directory)
        except OSError as error:
            raise FileNotFoundError(
                error.errno, f"node {self._where.node}: working directory {directory}: {error.strerror}"
            ) from None
        self._cwd = directory


def _sets_the_same(one: TaskSpec, other: TaskSpec) -> bool:
    """In the environment of a call."""
    return (
        one.env == other.env
        and one.name == other.name
        and one.queue == other.queue
        and one.cwd == other.cwd
        and one.resources == other.resources
    )


def _dump(value: object) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - lambdas, local classes: the slower pickler knows them
        return bytes(cloudpickle.dumps(value, protocol=5))


def _dump_exception(error: BaseException) -> bytes:
    """The exception and the text of its traceback; one that cannot be pickled is described instead."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-(1 << 20) :]
    if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
        error = RuntimeError(f"the function raised {type(error).__name__}({error})")
    try:
        data = _dump((error.with_traceback(None), text))
        pickle.loads(data)
    except Exception:  # noqa: BLE001 - see above
        return _dump((RuntimeError(f"{type(error).__name__}: {error}"[:2000]), text))
    return data if len(data) <= protocol.RESULT_LIMIT else _dump((RuntimeError(str(error)[:2000]), text))


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue


def _uid_of(peer: socket.socket) -> int:
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def main() -> None:
    worker = Worker(msgspec.json.decode(sys.argv[1], type=Place))
    sys.argv = ["jarvis-function"]
    threading.Thread(target=worker.serve, daemon=True).start()
    threading.Thread(target=worker.send_late, daemon=True).start()
    worker.run()
