"""Schedules that wait for files, on the leader's machine or on a node: one run for each, whoever leads or is killed."""

import os
from pathlib import Path

import msgspec
import pytest
from tests.unit.scheduler.test_triggers import ASK, AT_ONCE, Bed, spec

from jarvis.api.gateway import BadFrame, files_seen
from jarvis.bus.messages import PROTOCOL_VERSION, Looked
from jarvis.core.effects import AckFrame, Look, ToNode
from jarvis.core.errors import StoreUnavailable
from jarvis.core.inputs import Hello, NodeConnected
from jarvis.core.schedule import OnFile, Overlap, Rule, Schedule
from jarvis.core.workflow import WorkflowSpec
from jarvis.dag.schedules import FILES_KEPT, arrived
from jarvis.scheduler.arrivals import Arrivals
from jarvis.worker.looking import SCHEDULES_MOST, Looking


@pytest.fixture
async def bed() -> Bed:
    made = Bed()
    await made.lead()
    return made


def filed(directory: Path, overlap: Overlap = "allow", makes: WorkflowSpec | None = None, node: str = "") -> Schedule:
    return Schedule(
        id=0, name="files", project="p", user="bob", rule=Rule(on=OnFile(str(directory), "*.csv", node)), overlap=overlap,
        workflow=makes or spec("then", AT_ONCE, params={"event": {"type": "object"}}), created_at=0.0,
    )  # fmt: skip


class Looks:
    """A directory, and the one who looks into it beside the leader of a bed."""

    def __init__(self, bed: Bed, directory: Path, allowed: Path | None = None) -> None:
        self.bed, self.directory, self.allowed = bed, directory, str(allowed or directory)
        self.began()

    def began(self) -> None:
        scheduler = self.bed.leader.scheduler
        self.arrivals = Arrivals(
            scheduler.schedules, scheduler.bus, [self.allowed], lambda: True, lambda: scheduler.cluster
        )

    def put(self, name: str, text: str = "", changed: float = 5.0) -> None:
        (self.directory / name).write_text(text)
        os.utime(self.directory / name, (changed, changed))

    async def look(self) -> list[str]:
        """The names of all that made runs so far, oldest first."""
        await self.arrivals.look()
        await self.bed.leader.scheduler.run_once(await self.bed.leader.bus.take(0))
        made = await self.bed.made("then")
        return [workflow.spec.params["event"]["name"] for workflow in reversed(made)]


async def test_a_file_makes_one_run_when_two_looks_find_it_the_same(bed: Bed, tmp_path: Path) -> None:
    await bed.store.schedule_insert(filed(tmp_path))
    await bed.turn()
    looks = Looks(bed, tmp_path)
    looks.put("a.csv", "1")
    assert await looks.look() == []
    looks.put("a.csv", "12")
    assert await looks.look() == [], "it grows"
    assert await looks.look() == ["a.csv"]
    assert await looks.look() == ["a.csv"]
    (made,) = await bed.made("then")
    wanted = {"path": f"{tmp_path}/a.csv", "name": "a.csv", "size": 2, "changed_at": 5.0}
    assert made.spec.params["event"] == wanted
    looks.put("a.csv", "12", changed=6.0)
    looks.put("b.csv", changed=4.0)
    await looks.look()
    assert await looks.look() == ["a.csv", "b.csv", "a.csv"], (
        "in the order of their age; one that is changed is another"
    )


async def test_another_leader_knows_which_files_made_runs(bed: Bed, tmp_path: Path) -> None:
    await bed.store.schedule_insert(filed(tmp_path))
    await bed.turn()
    looks = Looks(bed, tmp_path)
    looks.put("a.csv")
    await looks.look()
    bed.store.fails = True
    with pytest.raises(StoreUnavailable):
        await looks.look()
    for _ in range(2):
        await bed.lead()
        await bed.turn()
        looks.began()
        await looks.look()
        assert await looks.look() == ["a.csv"]


async def test_what_is_no_plain_file_of_that_name_makes_no_run(bed: Bed, tmp_path: Path) -> None:
    inner = tmp_path / "in"
    inner.mkdir()
    await bed.store.schedule_insert(filed(inner))
    await bed.turn()
    looks = Looks(bed, inner)
    for name in ("a.txt", ".hidden.csv", "a.csv.part"):
        looks.put(name)
    (inner / "folder.csv").mkdir()
    (tmp_path / "secret.csv").write_text("")
    (inner / "link.csv").symlink_to(tmp_path / "secret.csv")
    (Path(os.fsencode(inner).decode()) / os.fsdecode(b"\xff.csv")).write_text("")
    await looks.look()
    assert await looks.look() == []


async def test_a_directory_that_a_link_leads_out_of_is_not_looked_into(bed: Bed, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "allowed" / "way").symlink_to(tmp_path / "other")
    way = tmp_path / "allowed" / "way"
    await bed.store.schedule_insert(filed(way))
    await bed.turn()
    looks = Looks(bed, way, tmp_path / "allowed")
    looks.put("a.csv")
    await looks.look()
    assert await looks.look() == []
    looks.allowed = str(tmp_path)
    looks.began()
    await looks.look()
    assert await looks.look() == ["a.csv"]


async def test_files_wait_while_a_schedule_is_paused_or_their_directory_is_away(bed: Bed, tmp_path: Path) -> None:
    inner = tmp_path / "in"
    ident, *_ = (await bed.store.schedule_insert(filed(inner))).ids
    await bed.command("schedule_pause", schedule=ident)
    looks = Looks(bed, inner)
    inner.mkdir()
    looks.put("a.csv")
    await looks.look()
    assert await looks.look() == []
    await bed.command("schedule_resume", schedule=ident)
    await looks.look()
    assert await looks.look() == ["a.csv"]
    inner.rename(tmp_path / "away")
    await looks.look()
    (tmp_path / "away").rename(inner)
    await looks.look()
    assert await looks.look() == ["a.csv"], "it is the same one"


async def test_a_file_that_comes_beside_a_run_is_left_out_if_that_is_wanted(bed: Bed, tmp_path: Path) -> None:
    await bed.store.schedule_insert(filed(tmp_path, "skip", spec("then", ASK, params={"event": {"type": "object"}})))
    await bed.turn()
    looks = Looks(bed, tmp_path)
    for name in ("a.csv", "b.csv"):
        looks.put(name)
    await looks.look()
    assert await looks.look() == ["a.csv"]
    await bed.decide((await bed.made("then"))[0].id, yes=True)
    assert await looks.look() == ["a.csv"]
    assert (await bed.store.schedule_list())[0].skipped == 1


class NodeLooks(Looks):
    """The same on a node: what its agent says goes to the leader as the gateway takes it, unless it is lost."""

    def __init__(self, bed: Bed, directory: Path, allowed: Path | None = None) -> None:
        self.said: list[Looked] = []
        super().__init__(bed, directory, allowed)

    def began(self) -> None:
        super().began()
        self.agent_began()

    def agent_began(self) -> None:
        self.looking = Looking([self.allowed], self.said.append)

    async def joins(self, name: str) -> int:
        """The node of that name has a session; its id."""
        hello = Hello(
            version=PROTOCOL_VERSION, software="0", name=name, node=None, boot_id=name, resources={"cpu": 1000}, labels={},
            watch=(self.allowed,), ordinal=1,
        )  # fmt: skip
        await self.bed.leader.scheduler.run_once([NodeConnected("hello", f"/{name}", hello)])
        return self.bed.leader.scheduler.cluster.node_names[name]

    async def look(self, lost: bool = False, node: int | None = None) -> list[str]:
        """``node``: who says so, if it is not the one that was asked."""
        await self.arrivals.look()
        bus = self.bed.leader.scheduler.bus
        bus.dispatch([AckFrame("/end", 0, 0, "end")])
        async for effect in bus.sessions():
            if isinstance(effect, ToNode) and isinstance(effect.message, Look):
                await self.looking.look(effect.message)
                while self.said:
                    seen = files_seen(effect.node if node is None else node, self.said.pop())
                    if not lost:
                        bus.offer(seen)
            elif isinstance(effect, AckFrame):
                break
        await self.bed.leader.scheduler.run_once(await self.bed.leader.bus.take(0))
        made = await self.bed.made("then")
        return [workflow.spec.params["event"]["name"] for workflow in reversed(made)]

    @property
    def problem(self) -> str:
        (schedule,) = self.bed.leader.scheduler.schedules.known.values()
        return schedule.problem


async def test_files_of_a_node_make_one_run_each_whoever_is_killed(bed: Bed, tmp_path: Path) -> None:
    await bed.store.schedule_insert(filed(tmp_path, node="n1"))
    await bed.turn()
    looks = NodeLooks(bed, tmp_path)
    looks.put("a.csv")
    assert await looks.look() == []
    assert looks.problem == "there is no node n1 any more"
    await looks.joins("n1")
    assert await looks.look() == []
    assert looks.problem == ""
    looks.agent_began()
    assert await looks.look() == [], "another agent has seen it once alone"
    assert await looks.look(lost=True) == [], "nobody heard it"
    assert await looks.look() == ["a.csv"]
    (made,) = await bed.made("then")
    assert made.spec.params["event"]["node"] == "n1"
    assert await looks.look() == ["a.csv"]
    assert looks.said == []
    for _ in range(2):
        await bed.lead()
        await bed.turn()
        looks.began()
        await looks.joins("n1")
        looks.put("b.csv", changed=6.0)
        await looks.look()
        assert await looks.look() == ["a.csv", "b.csv"]


async def test_what_the_leader_has_seen_is_not_said_again(bed: Bed, tmp_path: Path) -> None:
    said: list[Looked] = []
    looking = Looking([str(tmp_path)], said.append)
    (tmp_path / "a.csv").write_text("")
    look = Look(schedule=1, directory=str(tmp_path), pattern="*.csv")
    for _ in range(3):
        await looking.look(look)
    assert [one.moving for one in said] == [["a.csv"], [], []]
    await looking.look(msgspec.structs.replace(look, seen=said[-1].mark))
    assert len(said) == 3
    (tmp_path / "b.csv").write_text("")
    await looking.look(msgspec.structs.replace(look, seen=said[-1].mark))
    assert said[-1].moving == ["b.csv"]
    for schedule in range(2, SCHEDULES_MOST + 3):
        await looking.look(msgspec.structs.replace(look, schedule=schedule))
    await looking.look(look)
    assert said[-1].moving == ["a.csv", "b.csv"], "as long ago as that is forgotten"


async def test_a_node_tells_of_its_own_directories_alone(bed: Bed, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    await bed.store.schedule_insert(filed(tmp_path, node="n1"))
    await bed.turn()
    looks = NodeLooks(bed, tmp_path, tmp_path / "other")
    looks.put("a.csv")
    await looks.joins("n1")
    another = await looks.joins("n2")
    await looks.look()
    assert await looks.look() == []
    assert looks.problem == f"{tmp_path} is not below a directory of worker.watch"
    kinds = [event.kind for event in await bed.store.event_list(0, 1000)]
    assert kinds.count("schedule.blocked") == 1
    looks.allowed = str(tmp_path)
    looks.agent_began()
    for node in (another, 99, 0):
        await looks.look(node=node)
        assert await looks.look(node=node) == [], "that is not the node that was asked"
    assert await looks.look() == ["a.csv"]
    assert looks.problem == ""


def test_what_is_no_name_of_a_file_ends_the_session() -> None:
    for bad in (
        Looked(schedule=1, files={"a/b": (1, 1)}),
        Looked(schedule=1, files={"": (1, 1)}),
        Looked(schedule=1, files={f"{n}": (1, 1) for n in range(1001)}),
        Looked(schedule=1, mark="x" * 65),
    ):
        with pytest.raises(BadFrame):
            files_seen(1, bad)


def test_only_so_many_names_are_remembered_and_those_that_lie_there_first() -> None:
    schedule = filed(Path("/in"))
    first = {f"{n}.csv": (n, 1) for n in range(FILES_KEPT)}
    assert len(arrived(schedule, set(first), first)) == FILES_KEPT
    lying = {name for name in first if name.endswith("1.csv")}
    more = {f"new{n}.csv": (n, 1) for n in range(100)}
    assert arrived(schedule, lying | set(more), more) == list(more)
    assert len(schedule.files) == FILES_KEPT
    assert lying | set(more) <= set(schedule.files)
    assert arrived(schedule, lying, {name: first[name] for name in lying}) == []
