"""PURE: specs that are alike are read once: those of the elements of an array, and those of calls that differ in their arguments
alone, as those of a pool do one after the other."""

import msgspec

from jarvis.core.task import TaskSpec

_spec = msgspec.msgpack.Decoder(TaskSpec).decode
_bytes = msgspec.msgpack.Decoder(bytes).decode
_pack = msgspec.msgpack.Encoder().encode
_KEY = _pack("args")


class SpecReader:
    """Remembers the last spec by its bytes, or by those around its arguments: what has the same around one value that is bytes
    says the same with other arguments."""

    def __init__(self) -> None:
        self._packed = b""
        self._whole: TaskSpec | None = None
        self._head = self._tail = b""
        self._spec: TaskSpec | None = None

    def read(self, packed: bytes) -> tuple[TaskSpec, bytes | None]:
        """A spec and the arguments of its call, which are None where it has none inline. Calls that differ in nothing else get the
        same object, whose ``function.args`` is empty. Raises msgspec.DecodeError."""
        if self._whole is not None and packed == self._packed:
            return self._whole, None
        head, tail = self._head, self._tail
        if self._spec is not None and packed.startswith(head) and packed.endswith(tail):
            try:
                return self._spec, _bytes(packed[len(head) : len(packed) - len(tail)])
            except msgspec.DecodeError:  # what is between is not one value
                pass
        spec = _spec(packed)
        call = spec.function
        if call is None or call.args is None:
            self._packed, self._whole = packed, spec
            return spec, None
        head, found, tail = packed.partition(_KEY + _pack(call.args))
        if found and found not in tail:
            bare = msgspec.structs.replace(call, args=b"")
            self._head, self._tail, self._spec = head + _KEY, tail, msgspec.structs.replace(spec, function=bare)
            return self._spec, call.args
        return spec, call.args
