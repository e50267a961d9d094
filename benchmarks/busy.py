"""
busy: what is committed while a plugin keeps the loop 90 % busy.

One task offers 60,000 entries a second and spends what is then left of 90 % of the loop's time on
a loop that does nothing (it holds the interpreter's lock, which SQLite's thread needs too). What
it says is part of the 90 %. The value is what was committed, by the time from the first call to
the last commit, through which the plugin stays as busy. No viewers.
"""

from benchmarks.plan import Plan, ended
from benchmarks.table import Result, Skipped, result

OFFERED = 60_000
SHARE = 0.9
BAR = 50_000


def run(plan: Plan) -> list[Result | Skipped]:
    """Three rounds on servers of their own."""
    seconds, rounds = plan.scaled(6, 2), plan.scaled(3, 1)
    rates, dropped, held = [], 0, 0.0
    for number in range(rounds):
        plan.tell("busy", f"round {number + 1} of {rounds}")
        with plan.served("busy") as served:
            task = ended(
                served, served.submit("bench-busy", rate=OFFERED, seconds=seconds, share=SHARE, seed=plan.seed)
            )
            told, task_id = task["result"], task["id"]
            stats = served.get(f"/api/tasks/{task_id}/logs/stats?source=load.*")
        rates.append(stats["total"] / told["seconds"])
        dropped += told["said"] - stats["total"]
        held = told["held"]
    offered = f"{OFFERED:,}/s offered, loop held {held:.0%}"
    return [
        result(
            "busy", "committed beside a busy loop", "entries/s", rates,
            yardstick=offered, bar=f"≥ {BAR:,}/s", holds=sorted(rates)[len(rates) // 2] >= BAR,
        ),
        result("busy", "dropped", "", [float(dropped)], bar="0", holds=dropped == 0),
    ]  # fmt: skip
