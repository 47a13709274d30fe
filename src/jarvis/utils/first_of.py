"""Work that ends together."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_of(*work: Coroutine[Any, Any, None], quiet: tuple[type[Exception], ...] = ()) -> None:
    """Until one of them has ended, which ends the others; raises what one of them raised unless it is ``quiet``."""
    tasks = [asyncio.create_task(w) for w in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for ended in ends:
        if isinstance(ended, Exception) and not isinstance(ended, quiet):
            raise ended
