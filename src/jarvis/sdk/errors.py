"""What clients raise. ``exit_code`` is what the command line ends with."""


class ClientError(Exception):
    """The server refused, or could not be asked. ``code`` is the problem's stable word."""

    exit_code = 1

    def __init__(self, message: str, code: str = "error", hint: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.code, self.hint, self.status = code, hint, status


class NoSuchObject(ClientError):
    exit_code = 3


class Forbidden(ClientError):
    exit_code = 4


class WrongState(ClientError):
    exit_code = 5


class OverLimit(ClientError):
    exit_code = 6


class Unreachable(ClientError):
    """No server answered."""

    exit_code = 69


class WaitTimedOut(ClientError, TimeoutError):
    exit_code = 75


class TaskFailed(ClientError):
    """A task did not succeed; ``state`` and ``cause`` tell how it ended."""

    def __init__(self, task: int, state: str, cause: str) -> None:
        super().__init__(f"task {task} ended {state}" + (f" ({cause})" if cause else ""), code=state)
        self.task, self.state, self.cause = task, state, cause


_BY_STATUS = {401: Forbidden, 403: Forbidden, 404: NoSuchObject, 409: WrongState, 410: WrongState, 429: OverLimit}


def from_problem(status: int, body: object) -> ClientError:
    """The error for an RFC 9457 body (or for whatever came instead of one)."""
    problem = body if isinstance(body, dict) else {}
    detail = str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
    fields = [field for field in problem.get("errors") or () if isinstance(field, dict) and field.get("path")]
    lines = [f"{one['path']}: {str(one.get('message', '')).removeprefix(one['path'] + ': ')}" for one in fields]
    message = "\n  ".join([detail, *(line for line in lines if line != detail)])
    kind = _BY_STATUS.get(status, ClientError)
    return kind(message, str(problem.get("code") or status), str(problem.get("hint") or ""), status)
