"""The OpenAPI document: what FastAPI cannot see, because routes read bodies and write answers themselves."""

from typing import Any

from pydantic import BaseModel, TypeAdapter

from jarvis.api.schemas import answers as a
from jarvis.api.schemas import quotas as q
from jarvis.api.schemas import schedule_in as s
from jarvis.api.schemas import workflow_answers as w
from jarvis.api.schemas.task_in import components
from jarvis.api.schemas.workflow_in import DecideIn, RetryWorkflowIn, WorkflowIn

JSON, BYTES, TEXT, PROBLEM = "application/json", "application/octet-stream", "text/plain", "application/problem+json"
_TASK = a.TaskOut | a.ArrayOut | a.ElementOut

ANSWERS: dict[tuple[str, str], tuple[int, Any]] = {
    ("post", "/tasks"): (201, a.Submitted),
    ("get", "/tasks"): (200, a.TaskPage),
    ("post", "/tasks/batch"): (200, a.BatchAnswer),
    ("get", "/tasks/{ident}"): (200, _TASK),
    ("delete", "/tasks/{ident}"): (202, a.Wish),
    **{
        ("post", f"/tasks/{{ident}}/{verb}"): (202, a.Wish)
        for verb in ("cancel", "hold", "release", "requeue", "suspend", "resume", "signal")
    },
    ("post", "/tasks/{ident}/retry"): (201, a.Submitted),
    ("get", "/tasks/{ident}/elements"): (200, a.ElementPage),
    ("get", "/tasks/{ident}/attempts"): (200, a.AttemptPage),
    ("get", "/tasks/{ident}/events"): (200, a.EventPage),
    ("get", "/tasks/{ident}/result"): (200, BYTES),
    ("get", "/tasks/{ident}/why"): (200, a.Why),
    ("get", "/tasks/{ident}/logs"): (200, BYTES),
    ("get", "/tasks/{ident}/artifacts"): (200, a.ArtifactPage),
    ("get", "/tasks/{ident}/artifacts/{digest}"): (200, BYTES),
    ("get", "/events"): (200, a.EventPage),
    ("get", "/history"): (200, a.HistoryPage),
    ("get", "/events/stream"): (200, "text/event-stream"),
    ("get", "/nodes"): (200, a.NodePage),
    ("get", "/nodes/{ident}"): (200, a.NodeShown),
    **{
        ("post", f"/nodes/{{ident}}/{verb}"): (202, a.NodeWish)
        for verb in ("drain", "cordon", "uncordon", "resume", "remove")
    },
    ("post", "/workflows"): (201, w.SubmittedWorkflow),
    ("get", "/workflows"): (200, w.WorkflowPage),
    ("post", "/workflows/validate"): (200, w.Validation),
    ("get", "/workflows/{ident}"): (200, w.WorkflowOut),
    ("get", "/workflows/{ident}/steps"): (200, w.StepPage),
    ("get", "/workflows/{ident}/graph"): (200, w.Graph),
    **{("post", f"/workflows/{{ident}}/{verb}"): (202, a.Wish) for verb in ("cancel", "pause", "resume", "decide")},
    ("post", "/workflows/{ident}/retry"): (201, w.SubmittedWorkflow),
    ("post", "/schedules"): (201, s.NewSchedule),
    ("get", "/schedules"): (200, s.ScheduleList),
    ("post", "/schedules/{ident}/hook"): (202, s.Told),
    ("get", "/schedules/{ident}"): (200, s.ScheduleOut),
    ("delete", "/schedules/{ident}"): (202, a.Wish),
    **{("post", f"/schedules/{{ident}}/{verb}"): (202, a.Wish) for verb in ("pause", "resume", "trigger", "backfill")},
    ("put", "/blobs"): (201, a.BlobOut),
    ("get", "/blobs/{digest}"): (200, BYTES),
    ("post", "/blobs/missing"): (200, a.MissingOut),
    ("get", "/alive"): (200, a.Ok),
    ("get", "/ready"): (200, a.Ok),
    ("get", "/health"): (200, a.Health),
    ("get", "/version"): (200, a.Version),
    ("get", "/stats"): (200, a.Stats),
    ("get", "/cluster"): (200, a.ClusterOut),
    ("get", "/tokens"): (200, a.TokenPage),
    ("post", "/tokens"): (201, a.NewToken),
    ("delete", "/tokens/{ident}"): (200, a.TokenOut),
    ("get", "/quotas"): (200, q.QuotaPage),
    ("get", "/quotas/{project}"): (200, q.QuotaOut),
    ("put", "/quotas/{project}"): (202, q.QuotaWish),
    ("delete", "/quotas/{project}"): (202, q.QuotaWish),
    ("get", "/usage"): (200, q.UsagePage),
    ("get", "/projects"): (200, q.ProjectPage),
    ("get", "/queues"): (200, q.QueuePage),
    ("get", "/maintenance"): (200, q.BookingPage),
    ("post", "/maintenance"): (202, q.BookingWish),
    ("delete", "/maintenance/{ident}"): (202, q.BookingWish),
    ("get", "/licenses"): (200, q.LicensePage),
    ("post", "/plan"): (200, q.PlanOut),
    ("get", "/recommend"): (200, q.RecommendOut),
    ("get", "/metrics"): (200, TEXT),
    ("post", "/backups"): (201, a.Backup),
}
"""What each operation answers when all is well: a model, or the media type of bytes."""

MORE: dict[tuple[str, str], dict[int, Any]] = {
    ("post", "/tasks"): {200: a.Submitted},
    ("post", "/tasks/{ident}/retry"): {200: a.Submitted},
    ("post", "/workflows"): {200: w.SubmittedWorkflow},
    ("post", "/workflows/{ident}/retry"): {200: w.SubmittedWorkflow},
    ("post", "/schedules"): {200: s.NewSchedule},
    ("post", "/tasks/batch"): {422: a.BatchAnswer},
    ("get", "/health"): {503: a.Health},
    ("get", "/tasks/{ident}/artifacts/{digest}"): {206: BYTES},
}
"""Other statuses with bodies of their own: a replay by Idempotency-Key, an atomic batch refused, a server that is down."""

REFUSALS = {
    "400": "The request cannot be read", "401": "No valid token", "403": "Not allowed", "404": "No such object",
    "405": "No such method here", "409": "Its state does not allow it", "410": "The cursor is too old",
    "413": "Too large", "416": "Not within the file", "421": "Another host was asked for",
    "422": "A value cannot be meant", "429": "Over quota",
    "503": "Try again soon",
}  # fmt: skip

_IDENT = {"type": "string", "pattern": r"^[0-9]{1,18}(_[0-9]{1,10})?$"}
_NUMBER = {"type": "string", "pattern": r"^[0-9]{1,15}$"}
_LIMIT = {"type": "string", "pattern": r"^([1-9][0-9]{0,2}|1000)$"}
_DURATION = {"type": "string", "pattern": r"^[0-9]{1,4}[smh]?$"}
_CURSOR = {"type": "string", "pattern": r"^[0-9]{1,12}\.[0-9]{1,15}$"}
_WORD = {
    "type": "string",
    "minLength": 1,
    "maxLength": 100,
    "pattern": r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+$",
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "limit": _LIMIT, "wait": _DURATION, "offset": _NUMBER, "tail": _NUMBER, "attempt": _NUMBER, "project": _WORD,
    "user": _WORD, "queue": _WORD, "name": _WORD, "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "submitted_after": _NUMBER, "submitted_before": _NUMBER, "ended_after": _NUMBER,
}  # fmt: skip
"""What parameters look like; routes read them as text, so that each mistake has a message of its own."""
PLACED: dict[tuple[str, str], dict[str, Any]] = {
    ("/tasks", "cursor"): _NUMBER,
    ("/tasks/{ident}/elements", "cursor"): _NUMBER,
    ("/workflows", "cursor"): _NUMBER,
    ("/history", "cursor"): {"type": "string", "pattern": r"^[0-9]{1,15}(\.[0-9]{1,9})?$"},
    ("/workflows/{ident}/graph", "format"): {"type": "string", "enum": ["json"]},
    ("/tasks/{ident}/events", "after"): _NUMBER,
    ("/events", "after"): _CURSOR,
    ("/events/stream", "after"): _CURSOR,
}
LINKED = (
    "show",
    "cancel",
    "hold",
    "release",
    "elements",
    "attempts",
    "events",
    "result",
    "why",
    "logs",
    "artifacts",
    "retry",
)
"""What can be asked about a task that was just submitted, by the names of its routes."""


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """Add bodies, answers, problems, links and the token to the document that FastAPI made."""
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    schemas.update(components())
    for model in (WorkflowIn, DecideIn, RetryWorkflowIn, s.ScheduleIn, s.BackfillIn):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    _refer(a.Problem, schemas)
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    links = _links(document["paths"])
    for full, operations in document["paths"].items():
        path = full.removeprefix("/api/v1")
        for method, operation in operations.items():
            status, body = ANSWERS[method, path]
            told = {status: body} | MORE.get((method, path), {})
            operation["responses"] = _responses(told, schemas)
            if path in ("/tasks", "/tasks/{ident}/retry") and method == "post":
                operation["responses"][str(status)]["links"] = links
            for parameter in operation.get("parameters", ()):
                _parameter(path, parameter)
    blob = document["paths"]["/api/v1/blobs"]["put"]
    blob["requestBody"] = {"content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}
    return document


def _responses(told: dict[int, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    out: dict[str, Any] = {
        code: {"description": text, "content": {PROBLEM: dict(problem)}} for code, text in REFUSALS.items()
    }
    for status, body in told.items():
        media, schema = (body, {"type": "string"}) if isinstance(body, str) else (JSON, _refer(body, schemas))
        found = out.setdefault(str(status), {"description": "All is well", "content": {}})
        found["content"][media] = {"schema": schema}
    return out


def _refer(body: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to a model (or several); the models go into the components."""
    schema = TypeAdapter(body).json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    schemas.update(schema.pop("$defs", {}))
    if isinstance(body, type) and issubclass(body, BaseModel):
        schemas[body.__name__] = schema
        return {"$ref": f"#/components/schemas/{body.__name__}"}
    return dict(schema)


def _links(paths: dict[str, Any]) -> dict[str, Any]:
    """From the id that a submission answers to what can be asked about it."""
    found = {}
    for path, operations in paths.items():
        for operation in operations.values():
            name = operation["operationId"].partition("_api_v1")[0]
            if name in LINKED and "/tasks/{ident}" in path:
                found[name] = {"operationId": operation["operationId"], "parameters": {"ident": "$response.body#/id"}}
    return found


def _parameter(path: str, parameter: dict[str, Any]) -> None:
    name = parameter["name"]
    known = PLACED.get((path, name)) or PARAMETERS.get(name)
    if name == "ident":
        known = _IDENT if path.startswith("/tasks") else _NUMBER if path.startswith("/workflows") else _WORD
    if known is not None:
        default = parameter["schema"].get("default")
        parameter["schema"] = known | ({} if default in (None, "", "-1") else {"default": default})
