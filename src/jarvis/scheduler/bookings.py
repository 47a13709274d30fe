"""PURE: maintenance and reservations as commands make and remove them, and as time begins and ends them."""

from collections.abc import Callable

import msgspec

from jarvis.core.booking import Booking
from jarvis.core.command import Args, NewCommand
from jarvis.core.task import Task
from jarvis.scheduler.cluster import Cluster, NodeView
from jarvis.scheduler.filters import Reason
from jarvis.scheduler.nodes import recall_unstarted
from jarvis.scheduler.policy.bookings import booked, in_the_way, reason_of
from jarvis.scheduler.policy.order import seconds_of
from jarvis.scheduler.timer import Timer
from jarvis.scheduler.turn import Turn


def booking_args(booking: Booking) -> Args:
    """As the arguments of a command; names of nodes hold no line breaks."""
    return {
        "nodes": "\n".join(booking.nodes), "begin": booking.begin, "end": booking.end, "reason": booking.reason,
        "user": booking.user,
    }  # fmt: skip


def _booking_of(command: NewCommand, ident: int) -> Booking:
    args = command.args
    return Booking(
        id=ident, nodes=tuple(str(args["nodes"]).split("\n")), begin=float(args["begin"] or 0), end=float(args["end"] or 0),
        reason=str(args.get("reason") or ""), project=command.project or "", user=str(args.get("user") or ""), by=command.user,
    )  # fmt: skip


def on_booking(turn: Turn, command: NewCommand, ident: int) -> str:
    """Make one, under the number of the command that asked for it, or end one before its time. What runs goes on."""
    cluster = turn.cluster
    if command.verb == "booking_remove":
        booking = cluster.bookings.get(int(command.args.get("booking") or 0))
        if booking is None:
            return "it has ended already"
        _end(turn, booking, "removed", command.user)
    else:
        booking = _booking_of(command, ident)
        if booking.end <= turn.now:
            return "its end has passed"
        _keep(turn, booking, "set")
        _wake(cluster, booking)
    _close(turn)
    return ""


def _keep(turn: Turn, booking: Booking, what: str) -> None:
    turn.cluster.bookings[booking.id] = turn.changes.bookings[booking.id] = booking
    turn.event(f"{booking.kind}.{what}", nodes=",".join(booking.nodes), reason=booking.reason, by=booking.by)


def _end(turn: Turn, booking: Booking, what: str, by: str) -> None:
    del turn.cluster.bookings[booking.id]
    turn.changes.bookings[booking.id] = None
    turn.event(f"{booking.kind}.{what}", nodes=",".join(booking.nodes), reason=booking.reason, by=by)


def _wake(cluster: Cluster, booking: Booking) -> None:
    """The leader is to look at both instants; ``advance`` does what is due."""
    for at in (booking.begin, booking.end):
        cluster.add_timer(Timer(at, "booking", booking.id))


def load(cluster: Cluster, bookings: list[Booking]) -> None:
    """What the store knows."""
    cluster.bookings = {booking.id: booking for booking in bookings}
    for booking in bookings:
        _wake(cluster, booking)


def advance(turn: Turn) -> None:
    """Begin and end what time has come for."""
    for booking in sorted(turn.cluster.bookings.values(), key=lambda b: b.id):
        if booking.end <= turn.now:
            _end(turn, booking, "ended", booking.by)
        elif booking.begin <= turn.now and not booking.begun:
            _keep(turn, msgspec.structs.replace(booking, begun=True), "begun")
            for name in booking.nodes:
                view = turn.cluster.nodes.get(turn.cluster.node_names.get(name, 0))
                if view is not None:
                    recall_unstarted(turn, view)
    _close(turn)


def _close(turn: Turn) -> None:
    """Nodes under maintenance take no work."""
    cluster = turn.cluster
    found = booked(cluster.bookings, cluster.node_names, turn.now)
    for ident, view in cluster.nodes.items():
        now = [b for b in found.get(ident, ()) if b.kind == "maintenance" and b.begin <= turn.now]
        closed = reason_of(now[0], turn.now, 0.0).text if now else ""
        if view.closed != closed:
            view.closed, cluster.nodes_changed = closed, True


def refuser(cluster: Cluster, task: Task, now: float) -> Callable[[NodeView], Reason | None]:
    """What keeps a task from nodes because of their bookings."""
    found = booked(cluster.bookings, cluster.node_names, now) if cluster.bookings else {}
    seconds = seconds_of(cluster.order, task.spec)

    def refusal(view: NodeView) -> Reason | None:
        booking = in_the_way(found.get(view.node.id, ()), (task.project, task.user), now, now + seconds)
        return None if booking is None else reason_of(booking, now, seconds)

    return refusal
