"""What the benchmarks share: workers, interleaved rounds, ratios within a round, tables.

Only the standard library is used here, so that the process that measures stays small: on Linux a child's
peak memory starts from its parent's.

Machines are noisy and drift, so nothing is compared across time. Each column has a process of its own (in
one process, libraries disturb each other through heaps and thread pools); in every round each of them takes
one turn, in rotating order; a ratio is taken between the turns of one round, and the median over the rounds
is reported with a bootstrap interval.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
THREADS = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
}
THREADS["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # JAX has a pool of its own


def environment() -> dict[str, str]:
    """Return the workers' environment: one thread, and microfw from this checkout."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **THREADS, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}


def processor() -> str:
    """Return the name of the processor's model."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions(packages: Sequence[str]) -> str:
    """Return the installed ones with their versions."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            pass
    return ", ".join(found)


def heading(title: str, rounds: int, packages: Sequence[str] = ()) -> str:
    """Return what was run, where."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pins = ", ".join(f"{k}={v}" for k, v in THREADS.items())
    libraries = ", ".join(filter(None, (f"Python {sys.version.split()[0]}", versions(packages))))
    where = f"{processor()}, {cores} core{'s' if cores != 1 else ''}, {rounds} rounds"
    return "\n".join((title, where, libraries, pins, ""))


def peak_memory() -> float:
    """Return the most MB that this process had in memory."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


MAKE_FILE = """
import sys, numpy as np
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
np.savez(sys.argv[1], X=(X / 16).astype(np.float32), y=y.astype(np.int64))
"""


def save_digits(path: str) -> None:
    """Write the digits to an ``.npz`` file, by a process of its own: scikit-learn's memory is not to be counted."""
    subprocess.run([sys.executable, "-c", MAKE_FILE, path], check=True, env=environment())


class Worker:
    """A process of a benchmark that answers one line of JSON with another.

    `first` is what it says before it is asked anything: a dict, with "missing" or "error" if it can do no more.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        command = [sys.executable, script, "--worker", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )
        self.first: dict[str, Any] = self._hear()

    def ask(self, question: Any) -> Any:
        """Send a question and wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self._hear()

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line.strip() else {"error": f"ended with exit code {self.process.wait()}"}


def serve(prepare: Callable[[], tuple[dict[str, Any], Callable[[Any], Any]]]) -> None:
    """Be a worker: `prepare` returns what to say first and the function that answers questions."""
    voice = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not end up between the answers

    def say(answer: Any) -> None:
        print(json.dumps(answer), file=voice, flush=True)

    try:
        first, answer = prepare()
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != "microfw":
            return say({"missing": error.name})
        return say({"error": traceback.format_exc(limit=-3)})
    except Exception:
        return say({"error": traceback.format_exc(limit=-3)})
    say(first)
    for question in sys.stdin:
        say(answer(json.loads(question)))


def start(script: str, names: Sequence[str], *arguments: str) -> dict[str, Worker]:
    """Start a worker for each name; say which cannot work, and leave those out."""
    workers = {}
    for name in names:
        worker = Worker(script, name, *arguments)
        if "missing" in worker.first:
            print(f"  {name}: left blank, {worker.first['missing']} is not installed")
        elif "error" in worker.first:
            print(f"  {name}: FAILED\n{worker.first['error']}")
        else:
            workers[name] = worker
            continue
        worker.close()
    return workers


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Return the names, starting with another one each turn."""
    k = turn % len(names)
    return [*names[k:], *names[:k]]


def interval(values: Sequence[float], resamples: int = 1000) -> tuple[float, float, float]:
    """Return the median and the ends of its 95 % bootstrap interval."""
    values = list(values)
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(resamples))
    return statistics.median(values), medians[round(0.025 * resamples)], medians[round(0.975 * resamples) - 1]


def ratios(over: Sequence[float] | None, under: Sequence[float] | None) -> list[float] | None:
    """Return the ratios round by round, or None if a column is not there."""
    return [a / b for a, b in zip(over, under, strict=True)] if over and under else None


def shown(values: Sequence[float] | None, digits: int = 2) -> str:
    """Return a median with its interval as text; blank for None."""
    if not values:
        return ""
    middle, low, high = interval(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text: the first row is the heading, the first column is aligned left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  " + "   ".join(cells).rstrip())
    lines.insert(1, "  " + "-" * max(map(len, lines)))
    return "\n".join(lines)
