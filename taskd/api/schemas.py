"""
The shapes of bodies: requests are validated against them, and the OpenAPI document describes answers by them.

Answers are not built through these models (a page is joined from bytes that were encoded when the task
emitted the entries), so a test compares real answers with their schemas.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from taskd.entries import Level
from taskd.tasks import TaskStatus


class Shape(BaseModel):
    """The base of all shapes: a field that is not described is refused."""

    # Most models only serve the document, so each is built on its first use.
    model_config = ConfigDict(extra="forbid", defer_build=True)


class TaskCreation(Shape):
    """A task to start."""

    plugin: str = Field(description="Name of the plugin.")
    params: dict[str, Any] = Field(default_factory=dict, description="The params; see the plugin's params_schema.")


class TaskRetry(Shape):
    """Params for running a task again. Secret params are not stored, so they must be given again."""

    params: dict[str, Any] | None = Field(None, description="Params that replace those of the first execution.")


class SessionOpening(Shape):
    """The token that the page exchanges for its cookie."""

    token: str = Field(description="The service's token.")


class Progress(BaseModel):
    """The progress of a piece of work."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    id: str | int = Field(description="Identifies the progress within the task.")
    label: str
    current: float
    total: float | None = Field(description="Null if unknown.")
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

    id: str = Field(description="A UUID of version 7: ids sort by creation.")
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
    """One message of a source, at its place in its task's log."""

    seq: int = Field(description="1, 2, 3 … for each task, without gaps.")
    timestamp: str = Field(description="UTC, ISO 8601, microseconds, 'Z'.")
    level: Level
    source: str
    message: str
    metadata: dict[str, Any] | None


class Page(Shape):
    """A bounded slice of a log under a filter."""

    entries: list[Entry]
    total: int | None = Field(description="Matches in the whole log; null if counting needs `total=true`.")
    offset: int
    limit: int
    last_seq: int = Field(description="The log's newest seq when the page was read.")
    more: bool = Field(description="Another page exists.")
    ended: bool = Field(description="The task has ended.")


class Stats(Shape):
    """The number of matches, by level and source."""

    total: int
    by_level: dict[str, int]
    by_source: dict[str, int]
    first_timestamp: str | None
    last_timestamp: str | None


class OutlineBin(Shape):
    """The matches in one slice of time."""

    start: str = Field(description="Included.")
    end: str = Field(description="Not included.")
    count: int
    errors: int = Field(description="How many of them have level ERROR.")
    first_seq: int | None = Field(description="The smallest seq among them; null if the bin is empty.")


class Outline(Shape):
    """The matches over time and the anchors, from which the page draws a log and jumps in it."""

    total: int
    by_level: dict[str, int]
    by_source: dict[str, int]
    bins: list[OutlineBin] = Field(
        description="Equal slices of time from the log's first entry to its last, narrowed by since and until. An "
        "entry beyond either end (a clock was set) counts in the bin there. Empty for an empty log."
    )
    anchors: list[int] = Field(description="The seqs of match 1, 1,025, 2,049 …")
    last_seq: int = Field(description="The log's newest seq when the log was read.")


class Nearest(Shape):
    """The nearest match, and its place among the matches."""

    entry: Entry
    ordinal: int = Field(description="Its number among the matches, from 1.")
    total: int


class Sources(Shape):
    """The sources in a log."""

    sources: list[str] = Field(description="Sorted.")


class PluginShown(Shape):
    """A plugin that can be run."""

    name: str
    title: str
    description: str
    params_schema: dict[str, Any] | None
    context: bool = Field(description="Whether the plugin's execute takes a context.")


class PluginBroken(Shape):
    """A plugin that could not be loaded, and why."""

    name: str
    error: str


class Plugins(Shape):
    """The plugins that can be run, and those that failed to load."""

    plugins: list[PluginShown]
    broken: list[PluginBroken]


class Health(Shape):
    """The health of the service. Without the token, if one is set, only status and version are present."""

    status: Literal["ok", "degraded"]
    version: str
    database: str | None = Field(None, description="URL of the database: scheme, host and port alone.")
    tasks_running: int | None = None
    entries_pending: int | None = None
    problems: list[str] | None = Field(None, description="A sentence for each thing that is wrong; empty if ok.")


class Fault(Shape):
    """One fault of a body."""

    path: str = Field(description="The place of the fault, for example params.source.")
    message: str


class Problem(BaseModel):
    """A refusal and its reason (RFC 9457)."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault] = Field(default_factory=list, description="Every fault with its path, if the status is 422.")


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
    """All stored entries have been sent; later ones are live."""

    type: Literal["caught_up"]
    last_seq: int


class ProgressFrame(Shape):
    """The progress of a piece of work, independent of the filter."""

    type: Literal["progress"]
    source: str
    progress: Progress


class TaskFrame(Shape):
    """The task's status has changed."""

    type: Literal["task"]
    task: Task


class PingFrame(Shape):
    """No frame was due for a while; every match up to `last_seq` has been sent."""

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
