"""
How a task's end is told: from what came out of its plugin to a status, last words and a result.

Asked to stop and returned, or cancelled, is `cancelled` (`interrupted` where the service
stopped), whatever it returned. Raised is `failed`, also when asked to stop. Cancelled without
anybody having asked is a fault of the plugin's own, and `failed`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from taskd.entries import Level, timestamp_now
from taskd.runtime.execution import Outcome
from taskd.runtime.results import RESULT_BYTES_MAX, ResultTooLarge, encode_result
from taskd.tasks import TaskEnd, TaskStatus
from taskd.text.masking import Masker
from taskd.text.tracebacks import exception_line, exception_metadata, exception_text

Words = tuple[Level, str, dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Ending:
    """A task's end, its result decoded, and what `system` says of it in the log."""

    end: TaskEnd
    result: Any
    words: list[Words]


def ending_of(outcome: Outcome, stop_as: TaskStatus | None, started_at: str | None, masker: Masker) -> Ending:
    """The ending that an outcome is. `stop_as`: the task was asked to stop, and then ends as this."""
    # The clock may have been set back meanwhile: a task does not end before it has started.
    finished_at = max(timestamp_now(), started_at or "")
    after = f"after {_seconds(started_at, finished_at)}" if started_at else "before it ran"
    if outcome.error is not None:
        return _failed(outcome.error, finished_at, after, masker)
    if stop_as is None and outcome.cancelled:
        return _cancelled_within(outcome.cancellation, finished_at, after, masker)
    result, words = _result(outcome.result, masker)
    status = stop_as or TaskStatus.SUCCEEDED
    level = Level.INFO if status is TaskStatus.SUCCEEDED else Level.WARNING
    end = TaskEnd(status, finished_at, orjson.dumps(result).decode())
    return Ending(end, result, [*words, (level, f"{status} {after}", None)])


def _failed(error: BaseException, finished_at: str, after: str, masker: Masker) -> Ending:
    return _failure(exception_line(error, masker), error, finished_at, after, masker)


def _cancelled_within(error: BaseException | None, finished_at: str, after: str, masker: Masker) -> Ending:
    """Cancelled, though nobody had asked for it: where and, if it was said, why."""
    line = "CancelledError: the plugin was cancelled from within, and nobody asked for it"
    reason = exception_line(error, masker).partition(": ")[2] if error is not None else ""
    return _failure(f"{line}: {reason}" if reason else line, error, finished_at, after, masker)


def _failure(line: str, error: BaseException | None, finished_at: str, after: str, masker: Masker) -> Ending:
    """One entry for one failure, with the traceback below its first line: it is counted once."""
    text, metadata = f"failed {after}: {line}", None
    if error is not None:
        text = f"{text}\n{exception_text(error, masker)}"
        metadata = {"exception": exception_metadata(error, masker)}
    return Ending(TaskEnd(TaskStatus.FAILED, finished_at, None, line), None, [(Level.ERROR, text, metadata)])


def _result(value: Any, masker: Masker) -> tuple[Any, list[Words]]:
    """The result as JSON has it, masked; with words where it could not be kept."""
    try:
        encoded, cuts = encode_result(value)
    except ResultTooLarge as error:
        return None, [(Level.WARNING, f"the result is not kept: {error}", None)]
    if len(encoded) > RESULT_BYTES_MAX:
        size = f"it has {len(encoded):,} bytes, and {RESULT_BYTES_MAX:,} is the limit"
        return None, [(Level.WARNING, f"the result is not kept: {size}", None)]
    words: list[Words] = [(Level.WARNING, masker(f"the result was cut: {'; '.join(cuts)}"), None)] if cuts else []
    return masker.value(orjson.loads(encoded)), words


def _seconds(started_at: str, finished_at: str) -> str:
    took = datetime.fromisoformat(finished_at) - datetime.fromisoformat(started_at)
    return f"{took.total_seconds():,.1f} s"
