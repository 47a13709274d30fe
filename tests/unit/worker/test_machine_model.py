"""The machine under any order of events: resources are never exceeded, nothing starts twice, each ends exactly once."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from tests.unit.worker.test_machine import make

from jarvis.core.inputs import Ended, Returned
from jarvis.core.states import Cause
from jarvis.worker.machine import Instruction, Machine, Say, Start, Withdraw, Work

SIZES = (24, 8)
TOTAL = {"cpu": 3000, "gpu": 2000, "gpu_memory": sum(SIZES)}
NEEDS = [
    {"cpu": 1000}, {"cpu": 3000}, {"cpu": 500, "gpu": 500}, {"gpu": 1000}, {"gpu": 1500}, {"cpu": 4000}, {"gpu_memory": 6},
    {"cpu": 500, "gpu_memory": 20}, {"gpu": 300, "gpu_memory": 4}, {"gpu_memory": 30},
]  # fmt: skip


class Node(RuleBasedStateMachine):
    """Plays server, executor and warm processes against one machine."""

    numbers = Bundle("numbers")

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(TOTAL, SIZES)
        self.next = 1
        self.starts: dict[int, int] = {}
        self.outcomes: dict[int, str] = {}
        self.assigned: set[int] = set()
        self.pipes: dict[int, list[Work]] = {}

    def do(self, out: list[Instruction]) -> None:
        for item in out:
            if isinstance(item, Start):
                number = item.work.number
                assert self.outcomes.get(number) is None, "what is over does not start"
                self.starts[number] = self.starts.get(number, 0) + 1
                assert self.starts[number] == 1
            elif isinstance(item, Say) and isinstance(item.message, Ended):
                known = self.outcomes.setdefault(item.message.number, f"ended {item.message.cause}")
                assert known == f"ended {item.message.cause}", "an end never changes"
            elif isinstance(item, Say) and isinstance(item.message, Returned):
                for number in item.message.numbers:
                    assert number not in self.starts
                    assert self.outcomes.setdefault(number, "returned") == "returned"
            elif isinstance(item, Withdraw):
                for pipe in self.pipes.values():
                    if item.work in pipe:
                        pipe.remove(item.work)
                        self.do(self.machine.withdrawn([item.work]))
                        break

    @rule(target=numbers, needs=st.lists(st.sampled_from(NEEDS), min_size=1, max_size=6), function=st.booleans())
    def assign(self, needs: list[dict[str, int]], function: bool) -> object:
        batch = [make(self.next + at, "f" if function else None, **need) for at, need in enumerate(needs)]
        numbers = [assignment.number for assignment in batch]
        self.next += len(batch)
        self.assigned |= set(numbers)
        self.do(self.machine.assign(batch))
        return multiple(*numbers)

    @rule(number=numbers, function=st.booleans())
    def assign_again(self, number: int, function: bool) -> None:
        self.do(self.machine.assign([make(number, "f" if function else None)]))

    @rule(number=numbers)
    def recall(self, number: int) -> None:
        self.do(self.machine.recall([number]))

    @rule(number=numbers)
    def stop(self, number: int) -> None:
        self.do(self.machine.stop(number, Cause.CANCELLED, 1.0))

    @rule(data=st.data())
    def hand_ahead(self, data: st.DataObject) -> None:
        if self.machine.active:
            like = data.draw(st.sampled_from(list(self.machine.active.values())))
            self.pipes.setdefault(like.number, []).extend(self.machine.ahead(like, 3))

    @rule(data=st.data(), process_dies=st.booleans(), ships=st.booleans())
    def finish(self, data: st.DataObject, process_dies: bool, ships: bool) -> None:
        if not self.machine.active:
            return
        number = data.draw(st.sampled_from(sorted(self.machine.active)))
        pipe = self.pipes.pop(number, [])
        heir = pipe.pop(0) if pipe and not process_dies else None
        heir_number = None if heir is None else heir.number
        if heir is not None:
            self.starts[heir.number] = self.starts.get(heir.number, 0) + 1
            assert self.starts[heir.number] == 1
            self.pipes[heir.number] = pipe
        message = Ended(number=number, token=100 + number, cause=Cause.EXIT)
        if ships:
            self.do(self.machine.vacated(number, heir_number))
            self.do(self.machine.finished(message))
        else:
            self.do(self.machine.finished(message, heir_number))
        if heir is None and pipe:
            self.do(self.machine.withdrawn(pipe))

    @rule(number=consumes(numbers))
    def record(self, number: int) -> None:
        if number in self.machine.ended:
            self.do(self.machine.recorded([number], 0))

    @rule()
    def reconnect(self) -> None:
        lowest = min((n for n in self.assigned if n not in self.machine.settled), default=self.next)
        self.do(self.machine.welcomed([], [], lowest))

    @invariant()
    def resources_add_up(self) -> None:
        used: dict[str, int] = {}
        shares: dict[int, int] = {}
        memory: dict[int, int] = {}
        for work in self.machine.active.values():
            for name, amount in work.spec.resources.items():
                used[name] = used.get(name, 0) + amount
            for share in work.shares:
                shares[share.gpu] = shares.get(share.gpu, 0) + share.part
                memory[share.gpu] = memory.get(share.gpu, 0) + share.memory
        for name, amount in TOTAL.items():
            assert 0 <= used.get(name, 0) <= amount
            assert self.machine.free[name] == amount - used.get(name, 0)
        assert all(amount <= 1000 for amount in shares.values())
        assert all(amount <= SIZES[index] for index, amount in memory.items())

    @invariant()
    def each_is_in_one_place(self) -> None:
        m = self.machine
        places = [set(m.waiting), set(m.piped), set(m.active), set(m.leaving), set(m.ended)]
        for number in self.assigned:
            count = sum(number in place for place in places)
            assert count + (number in m.settled) == 1, number

    @invariant()
    def what_waits_could_not_start(self) -> None:
        if not self.machine.active and not self.machine.piped:
            assert not self.machine.waiting

    def teardown(self) -> None:
        """Let everything run out: each assignment has exactly one outcome."""
        while self.machine.active or self.machine.piped:
            for number in list(self.machine.active):
                pipe = self.pipes.pop(number, [])
                self.do(self.machine.finished(Ended(number=number, token=100 + number, cause=Cause.EXIT)))
                if pipe:
                    self.do(self.machine.withdrawn(pipe))
        assert not self.machine.waiting
        assert set(self.outcomes) == self.assigned


Node.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestNode = Node.TestCase
