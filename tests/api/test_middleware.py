"""The outermost layer: every answer has the safe headers."""

from tests.api.conftest import Shown


async def test_every_answer_forbids_guessing_framing_and_keeping(shown: Shown) -> None:
    """Good answers and problems alike."""
    for path in ("/api/tasks", "/api/nothing", "/api/tasks?levle=1"):
        headers = (await shown.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
