"""Errors carry the entity, what was wrong with it and what to do next; shells turn them into problem+json or exit codes."""


class JarvisError(Exception):
    """Base of all errors of Jarvis. ``code`` is stable for programs; ``hint`` says what to do next."""

    code = "error"
    hint = ""


class InvalidValue(JarvisError):
    """A field holds something that cannot be meant."""

    code = "invalid_value"

    def __init__(self, field: str, value: object, expected: str) -> None:
        shown = repr(value)
        super().__init__(f"{field}: {shown if len(shown) <= 80 else shown[:77] + '...'} is not {expected}")
        self.field, self.value, self.hint = field, value, f"give {expected}"


class NotFound(JarvisError):
    """There is no such object, or it is not visible to the asker."""

    code = "not_found"

    def __init__(self, kind: str, ident: object) -> None:
        super().__init__(f"no {kind} {ident}")
        self.kind, self.ident = kind, ident


class Conflict(JarvisError):
    """The object is in a state that does not allow this."""

    code = "conflict"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidTransition(Conflict):
    """A state change that the table of transitions does not list."""

    code = "invalid_transition"

    def __init__(self, entity: str, before: str, after: str, cause_id: str) -> None:
        super().__init__(f"{entity} cannot go from {before} to {after} (cause {cause_id})")
        self.entity, self.before, self.after, self.cause_id = entity, before, after, cause_id


class IdempotencyConflict(Conflict):
    """The same idempotency key came with another body."""

    code = "idempotency_conflict"

    def __init__(self, key: str) -> None:
        super().__init__(f"Idempotency-Key {key!r} was used with another body", "use a new key for a new request")


class NotAllowed(JarvisError):
    """The principal may not do this."""

    code = "not_allowed"


class NeverFits(JarvisError):
    """No registered node type can ever meet the request."""

    code = "never_fits"

    def __init__(self, dimension: str, wanted: str, largest: str) -> None:
        none = largest == "0"
        has = "no node has any" if none else f"no node has {wanted}; the largest has {largest}"
        super().__init__(f"resources.{dimension}: {has}")
        self.dimension = dimension
        self.hint = (
            "add a node that has some" if none else f"ask for at most {largest} of {dimension}, or add a larger node"
        )


class NoNodeHasAll(JarvisError):
    """Each dimension of the request is met somewhere, and all of them together nowhere; ``nearest``: the node that lacks least."""

    code = "never_fits"

    def __init__(self, wanted: str, nearest: str, lacks: str) -> None:
        super().__init__(f"resources: no node has {wanted} together; {nearest} comes nearest: {lacks}")
        self.hint = f"ask for no more than {nearest} has, or add a larger node"


class TooFewNodes(JarvisError):
    """There are not so many registered nodes that could ever hold a rank."""

    code = "never_fits"

    def __init__(self, wanted: int, able: int, registered: int) -> None:
        super().__init__(
            f"nodes: {wanted} are wanted, and {able} of the {registered} registered could ever hold a rank"
        )
        self.hint = (
            f"ask for at most {able} node{'s' if able > 1 else ''}, or for less on each, or add nodes"
            if able
            else "ask for less, or add nodes"
        )


class NoLicense(JarvisError):
    """A licence that the settings do not name, or more of one than there are."""

    code = "no_license"

    def __init__(self, name: str, text: str, known: list[str]) -> None:
        super().__init__(f"licenses.{name}: {text}")
        self.field = f"licenses.{name}"
        self.hint = f"ask for no more than there are of: {', '.join(known)}" if known else "name them in the settings"


class OverQuota(JarvisError):
    """Its owner may not have this, or no more of it now."""

    code = "over_quota"

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word, self.hint = word, "ask for less, wait until something has ended, or have the quota raised"


class StoreUnavailable(JarvisError):
    """The store cannot take or answer anything at the moment; nothing was half-written."""

    code = "store_unavailable"
    hint = "try again in a few seconds with the same Idempotency-Key"


class StaleEpoch(JarvisError):
    """Another leader has taken over; this one must stop deciding."""

    code = "stale_epoch"


class LeadershipHeld(JarvisError):
    """Another server leads and its lease has not ended; ``left_s``: how long it still runs if it is not renewed, ``early_s``: in
    how many seconds it may be found gone before that, 0 when that may be at any time."""

    code = "leadership_held"

    def __init__(self, holder: str, left_s: float, early_s: float = 0.0) -> None:
        super().__init__(f"{holder} leads for another {left_s:.1f} s")
        self.holder, self.left_s, self.early_s = holder, left_s, early_s


class StateDirectoryInUse(JarvisError):
    """Another live server owns the state directory."""

    code = "state_directory_in_use"


class StoreCorrupt(JarvisError):
    """The database does not pass its checks; Jarvis refuses to run on it."""

    code = "store_corrupt"
    hint = "restore a backup with 'jarvis restore FILE'; the damaged file is left as it is"


class CursorTooOld(JarvisError):
    """The events asked for have been removed by retention, or belong to another life of the database."""

    code = "cursor_too_old"

    def __init__(self, oldest: str) -> None:
        super().__init__(f"that cursor is too old; the oldest valid one is {oldest}")
        self.oldest = oldest
        self.hint = f"start again from after={oldest}"
