"""Times of phases, and the overhead, as text."""

from __future__ import annotations

from microfw.profiler.session import Epoch


def overhead_text(overhead: dict[str, float]) -> str:
    """Return a sentence with the cost of profiling."""
    low, high = (overhead.get(end, overhead["share"]) for end in ("low", "high"))
    how = "measured by alternating profiled and plain steps" if overhead.get("measured") else "estimated"
    interval = f" ({low:.1%} to {high:.1%})" if low < high else ""
    share, per_node = overhead["share"], overhead["ns_per_node"]
    return f"Profiling made the steps {share:.1%} slower{interval}, {how}: {per_node:,.0f} ns a node."


def times_of_phases(e: Epoch, sampled: bool) -> list[list[str]]:
    """Return table rows: name, milliseconds and share of each phase. The rows add up to the total."""
    times = {"data": e.data_ns, "forward": e.forward_ns, "backward": e.backward_ns, "update": e.update_ns}
    times |= {"evaluation": e.evaluation_ns, "comparing replays with eager steps": e.check_ns}
    times |= {"preparing replays": e.preparation_ns, "other": e.other_ns - e.preparation_ns}
    times["steps not observed" if sampled else "not recorded"] = e.unobserved_ns
    rows = [[name, f"{ns / 1e6:,.2f}", f"{ns / (e.total_ns or 1):.1%}"] for name, ns in times.items() if ns]
    rows.append(["total", f"{e.total_ns / 1e6:,.2f}", "100.0%"])
    return rows
