"""What runs in warm processes around the functions themselves: initializers, and chunks of a map."""

from collections.abc import Callable, Sequence
from typing import Any

from jarvis.sdk.broken import InitializerFailed

_initialized: dict[tuple[str, int], Callable[..., object]] = {}
"""By pool and initializer, which is kept so that its id stays its own."""


class Initialized:
    """A function that runs its pool's initializer first, once in a process.

    Both are pickled together, so that they share their globals. An initializer that is pickled by value has others in the
    pickle of each function, and runs once for each.
    """

    def __init__(
        self, function: Callable[..., Any], pool: str, initializer: Callable[..., object], args: tuple[Any, ...]
    ):
        self.function, self.pool, self.initializer, self.args = function, pool, initializer, args

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self.pool, id(self.initializer)
        if key not in _initialized:
            try:
                self.initializer(*self.args)
            except BaseException as error:
                raise InitializerFailed(f"the initializer raised {type(error).__name__}: {error}") from error
            _initialized[key] = self.initializer
        return self.function(*args, **kwargs)


class Chunk:
    """A function over several sets of arguments in one call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", "call")

    def __call__(self, rows: Sequence[tuple[Any, ...]]) -> list[Any]:
        return [self.function(*row) for row in rows]
