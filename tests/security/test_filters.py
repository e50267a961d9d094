"""Filters are data: no key, pattern or number is a statement, a program or a way to keep the store busy."""

import time
from urllib.parse import quote

import pytest

from tests.security.conftest import Target

KEYS = [
    "a'b", 'a"b', "a'||(SELECT 1)||'", '") OR 1=1 --', "$", "$.a", "$[0]", "a.b", "a[0]", "[#-1]", "*", "%", "_", "\\",
    "\0", "a\0b", "\u2028", "\u202e", "a" * 1_000, "1", "task_id", "message", "a\nb", "${x}", "{x}", "?", ":x", "@x",
]  # fmt: skip
BOMBS = [
    "(a+)+$", "(a|aa)+$", "(.*a){20}", "((a{1,100}){1,100}){1,100}", "(?:" * 300 + "a" + ")" * 300, "a{1000}" * 140,
    "(x+x+)+y", "\\C", "(?=a)", "(a)\\1", "[" * 500, "(?P<n>a)", "\\p{Greek}" * 100, "(" * 1_000,
    "^(([a-z])+.)+[A-Z]([a-z])+$",
]  # fmt: skip
WITHIN_S = 5.0


@pytest.fixture(scope="module")
def log(here: Target) -> str:
    """A log to ask."""
    return f"/api/tasks/{here.run_task('talk', count=300, word='a' * 2_000 + '!')['id']}/logs"


@pytest.mark.parametrize("route", ["", "/stats", "/outline", "/export", "/stream"])
def test_a_metadata_key_is_data(here: Target, log: str, route: str) -> None:
    """Django CVE-2024-42005: a JSON key became part of the statement. It matches nothing, or what it names."""
    for key in KEYS:
        for value in ("x", "' OR 1=1 --", "1"):
            answer = here.http("GET", f"{log}{route}?meta.{quote(key, safe='')}={quote(value)}")
            assert answer.status_code == 200, (key, answer.text)
    assert here.http("GET", f"{log}?meta.n=7&meta.{quote(KEYS[3])}=1").json()["entries"] == []
    assert here.http("GET", f"{log}?meta.n=7").json()["entries"][0]["metadata"] == {"n": 7}
    assert here.http("GET", f"{log}?meta.=1").status_code == 400
    assert here.http("GET", f"{log}?meta.{'a' * 1_001}=1").status_code == 400


@pytest.mark.parametrize("pattern", BOMBS)
def test_a_pattern_that_takes_others_for_ever_is_answered_or_refused(here: Target, log: str, pattern: str) -> None:
    """Python's `re` stood still on the first for longer than this file takes; the service answers others meanwhile."""
    began = time.monotonic()
    answer = here.http("GET", f"{log}?regex=true&search={quote(pattern, safe='')}&exclude={quote(pattern, safe='')}")
    assert answer.status_code in (200, 400)
    assert time.monotonic() - began < WITHIN_S
    assert here.http("GET", "/api/health").status_code == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("offset=9223372036854775807", 200), ("offset=9223372036854775808", 400), ("offset=-1", 400), ("offset=1e3",
        400),
        ("limit=0", 400), ("limit=5001", 400), ("limit=99999999999999999999", 400), ("limit=%2b5", 400),
        ("limit=5_0", 400),
        ("limit=\u0665", 400), ("limit=5&limit=5", 400), ("after=-1", 400), ("tail=0", 400), ("after=NaN", 400),
        ("before=9223372036854775807", 200), ("&".join(["search=a"] * 64), 200), ("&".join(["search=a"] * 65), 400),
        ("search=" + "a" * 1_000, 200), ("search=" + "a" * 1_001, 400),
        ("source=" + ",".join("abc" for _ in range(1_000)), 200),
        ("source=" + ",".join("abc" for _ in range(1_001)), 400), ("source=*", 200), ("source='%20OR%201=1", 200),
        ("search=%ff%fe", 200), ("search=%ed%a0%80", 200), ("search=%00", 200), ("search=", 400), ("level=%00", 400),
        ("since=0001-01-01T00:00:00Z", 200), ("since=9999-12-31T23:59:59Z", 200), ("since=9999-12-31T23:59:59-23:59",
        400),
        ("until=99999-01-01", 400), ("a[]=1", 400), ("search[]=1", 400), (";search=1", 400), ("__proto__=1", 400),
        ("&" * 1_000, 200), ("order=asc;DROP%20TABLE%20tasks", 400), ("total=true&search=a&exclude=!", 200),
    ],
)  # fmt: skip
def test_an_extreme_is_answered_or_refused(here: Target, log: str, query: str, status: int) -> None:
    """Never a fault."""
    assert here.http("GET", f"{log}?{query}").status_code == status
