"""
What schemathesis cannot know of this API; its configuration names this file as its hooks.

A schema says what each parameter may be, and not which exclude each other. Where a request that
fits the schema is refused with 400, the refusal must be for one of the rules below.
"""

import json
import re
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, DeserializationContext, Response

# `tail` excludes what also says which part; `after` is a seq that the log has; patterns are RE2's.
BETWEEN_PARAMETERS = re.compile(r"together with tail|the log's last_seq|regular expression in RE2's syntax: ")

NO_ENTRY = '{"seq": 1, "timestamp": "", "level": "INFO", "source": "", "message": "", "metadata": null}'


@schemathesis.check
def refused_for_a_rule_between_parameters(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """`positive_data_acceptance`, but for the rules that no schema holds."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if response.status_code == 400 and not BETWEEN_PARAMETERS.search(response.text):
        raise AssertionError(f"refused, and it fits the schema: {response.text}")


@schemathesis.deserializer("application/x-ndjson")
def entries_of(ctx: DeserializationContext, response: Response) -> object:
    """The last line, for the schema is that of one of them; an empty log has one that fits. A file is a text."""
    if ctx.operation.path.endswith("/export"):
        return response.text
    lines = response.text.splitlines() or [NO_ENTRY]
    return json.loads(lines[-1])
