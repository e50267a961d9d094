"""
The shapes of bodies: those that come in are validated by these, those that go out described.

Answers are not built through these models (a page is joined from bytes that were encoded
when the entries were emitted), so a test holds real answers against their schemas.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from taskd.entries import Level
from taskd.tasks import TaskStatus


class Shape(BaseModel):
    """What all shapes have in common: nothing in them that is not described."""

    # Most only describe: a model is built when it is first asked for something.
    model_config = ConfigDict(extra="forbid", defer_build=True)


class TaskCreation(Shape):
    """What to run."""

    plugin: str = Field(description="Name of the plugin.")
    params: dict[str, Any] = Field(default_factory=dict, description="Its params; see the plugin's params_schema.")


class TaskRetry(Shape):
    """Params to run the task with again; secret ones were not kept and must be given."""

    params: dict[str, Any] | None = Field(None, description="Params that replace those of the first execution.")


class SessionOpening(Shape):
    """What the page shows to be let in."""

    token: str = Field(description="The service's token.")


class Progress(BaseModel):
    """How far a piece of work has come."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    id: str | int = Field(description="Tells this progress from others of the task.")
    label: str
    current: float
    total: float | None = Field(description="Null where it is not known.")
    unit: str
    done: bool


class Counts(Shape):
    """Entries by level."""

    DEBUG: int
    INFO: int
    WARNING: int
    ERROR: int


class Task(Shape):
    """One execution of a plugin. Secret params are `***`."""

    id: str = Field(description="A UUID of version 7: sorts by creation.")
    plugin: str
    params: dict[str, Any]
    status: TaskStatus
    created_at: str
    started_at: str | None
    finished_at: str | None
    result: Any
    error: str | None
    retry_of: str | None = Field(description="The task that this one runs again.")
    last_seq: int = Field(description="The newest entry's seq, stored or pending; 0 without entries.")
    progress: Progress | None = Field(description="The newest progress.")
    counts: Counts


class TaskList(Shape):
    """Tasks, the newest first."""

    tasks: list[Task]
    next_before: str | None = Field(
        description="`before` for the next page; null on the last. A page also ends at page_bytes_max."
    )


class Entry(Shape):
    """What a source said, at its place in its task's log."""

    seq: int = Field(description="1, 2, 3 … for each task, without holes.")
    timestamp: str = Field(description="UTC, ISO 8601, microseconds, 'Z'.")
    level: Level
    source: str
    message: str
    metadata: dict[str, Any] | None


class Page(Shape):
    """A bounded slice of a log under a filter."""

    entries: list[Entry]
    total: int | None = Field(description="Matches in the whole log; null where counting needs `total=true`.")
    offset: int
    limit: int
    last_seq: int = Field(description="The log's newest seq when the page was read.")
    more: bool = Field(description="Another page exists.")
    ended: bool = Field(description="The task has ended.")


class Stats(Shape):
    """How many entries match, and which."""

    total: int
    by_level: dict[str, int]
    by_source: dict[str, int]
    first_timestamp: str | None
    last_timestamp: str | None


class OutlineBin(Shape):
    """The matches of one slice of time."""

    start: str = Field(description="Included.")
    end: str = Field(description="Not included.")
    count: int
    errors: int = Field(description="Of them, those of level ERROR.")
    first_seq: int | None = Field(description="The smallest seq among them; null where there are none.")


class Outline(Shape):
    """What is needed to draw a log and to jump in it."""

    total: int
    by_level: dict[str, int]
    by_source: dict[str, int]
    bins: list[OutlineBin] = Field(
        description="Equal slices of time from the log's first entry to its last, narrowed by since and until; an "
        "entry beyond either end, by a clock that was set, counts in the bin there. Empty for an empty log."
    )
    anchors: list[int] = Field(description="The seqs of match 1, 1,025, 2,049 …")
    last_seq: int = Field(description="The log's newest seq when it was read.")


class Nearest(Shape):
    """The nearest match, and its place among the matches."""

    entry: Entry
    ordinal: int = Field(description="Its number among the matches, from 1.")
    total: int


class Sources(Shape):
    """Who spoke in a log."""

    sources: list[str] = Field(description="Sorted.")


class PluginShown(Shape):
    """A plugin that can be run."""

    name: str
    title: str
    description: str
    params_schema: dict[str, Any] | None
    context: bool = Field(description="Whether its execute takes a context.")


class PluginBroken(Shape):
    """A plugin that could not be loaded, and why."""

    name: str
    error: str


class Plugins(Shape):
    """What can be run and what failed to load."""

    plugins: list[PluginShown]
    broken: list[PluginBroken]


class Health(Shape):
    """How the service is. All but the first two are left out if the service has a token and the request has not."""

    status: Literal["ok", "degraded"]
    version: str
    database: str | None = Field(None, description="URL of the database: scheme, host and port alone.")
    tasks_running: int | None = None
    entries_pending: int | None = None
    problems: list[str] | None = Field(None, description="A sentence for each thing that is wrong; empty if ok.")


class Fault(Shape):
    """One thing wrong with a body."""

    path: str = Field(description="Where, for example params.source.")
    message: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault] = Field(default_factory=list, description="With 422: every fault with its path.")


class Document(BaseModel):
    """An OpenAPI document."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


class HelloFrame(Shape):
    """The first frame."""

    type: Literal["hello"]
    task: Task
    last_seq: int = Field(description="The log's newest seq.")


class EntriesFrame(Shape):
    """Matches, in seq order, each once."""

    type: Literal["entries"]
    entries: list[Entry]


class CaughtUpFrame(Shape):
    """What was stored has been sent; what follows is live."""

    type: Literal["caught_up"]
    last_seq: int


class ProgressFrame(Shape):
    """How far a piece of work has come, whatever the filter."""

    type: Literal["progress"]
    source: str
    progress: Progress


class TaskFrame(Shape):
    """The task's status has changed."""

    type: Literal["task"]
    task: Task


class PingFrame(Shape):
    """Nothing to send for a while; every match up to `last_seq` has been."""

    type: Literal["ping"]
    last_seq: int


class EndFrame(Shape):
    """The last frame."""

    type: Literal["end"]
    task: Task
    last_seq: int


FRAMES: tuple[type[Shape], ...] = (
    HelloFrame,
    EntriesFrame,
    CaughtUpFrame,
    ProgressFrame,
    TaskFrame,
    PingFrame,
    EndFrame,
)
