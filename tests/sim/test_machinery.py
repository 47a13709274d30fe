"""The simulation's own tools do what they say: knobs are turned back, and a process that stands still does nothing at all."""

import asyncio
from importlib import import_module

from jarvis.sim.knobs import AT, EVERY, KNOBS, turned
from jarvis.sim.loop import VirtualLoop, of_process


def values() -> list[object]:
    return [getattr(import_module(knob.module), knob.name) for knob in KNOBS]


def test_knobs_are_turned_by_some_seeds_and_turned_back() -> None:
    before, seen = values(), set()
    for seed in range(AT, 400, EVERY):
        with turned(seed) as told:
            assert (values() != before) is bool(told)
            seen |= {line.partition("=")[0] for line in told}
        assert values() == before
        with turned(seed) as again:
            assert again == told
    assert seen == {f"{knob.module}.{knob.name}" for knob in KNOBS}
    with turned(AT + 1) as told:
        assert told == []


def test_what_stands_still_goes_on_where_it_was() -> None:
    loop = VirtualLoop()
    ticks: dict[str, list[float]] = {"a": [], "b": []}

    async def tick(name: str) -> None:
        while True:
            ticks[name].append(loop.time())
            await asyncio.sleep(1.0)

    async def story() -> None:
        tasks = [loop.create_task(tick(name), context=of_process(name)) for name in ticks]
        await asyncio.sleep(2.5)
        loop.freeze("a")
        await asyncio.sleep(10.0)
        loop.thaw("a")
        await asyncio.sleep(1.4)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop.run_until_complete(story())
    loop.close()
    assert ticks["a"] == [0.0, 1.0, 2.0, 12.5, 13.5]
    assert ticks["b"] == [float(second) for second in range(14)]
