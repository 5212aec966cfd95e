"""Time whole processes, start to exit: load digits, train 64-64-10 for 20 epochs with batches of 32, evaluate.

    python benchmarks/bench_process.py [--rounds N] [--forms sklearn,npz,load]

Three forms: the data come through ``sklearn.datasets`` in every column; from an ``.npz`` file, so that nothing needs to
import scikit-learn; or through ``mf.data.load``, which imports scikit-learn in the first run and reads its cache in later
ones. The third form runs the script of the README, and ``microfw profile digits``.
"""

from __future__ import annotations

import argparse
import compileall
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from interleaved import environment, heading, ratios, rotated, save_digits, shown, table

SCRIPT = str(pathlib.Path(__file__).with_name("process_jobs.py"))
PACKAGE = pathlib.Path(__file__).parents[1] / "microfw"
LOAD, OURS, TORCH, JAX, SKLEARN = "only load the data", "microfw", "PyTorch eager", "JAX jit", "MLPClassifier"
REPLAY = "microfw replay"
README, PROFILE = "README's script", "microfw profile digits"
FORMS = {
    "sklearn": (LOAD, OURS, REPLAY, TORCH, JAX, SKLEARN),
    "npz": (LOAD, OURS, REPLAY, TORCH, JAX),
    "load": (LOAD, *(f"{script}, {when}" for script in (README, PROFILE) for when in ("first run", "later runs"))),
}
TITLES = {
    "sklearn": "data through sklearn.datasets",
    "npz": "data from an .npz file",
    "load": "data through mf.data.load",
}
TARGETS = (  # form, what is compared, solid, best
    ("sklearn", "/ only load", 1.25, 1.1),
    ("sklearn", f"x faster than {TORCH}", 2.5, 3),
    ("sklearn", f"x faster than {JAX}", 1.5, 1.8),
    ("sklearn", f"x faster than {SKLEARN}", 1.25, 1.4),
    ("npz", "/ only load", 1.6, 1.2),
    ("npz", f"x faster than {TORCH}", 10, 18),
    ("npz", f"x faster than {JAX}", 5, 8),
    ("npz", "peak MB", 60, 40),
    ("load", f"{README}, first run / only load", 1.15, 1.05),
    ("load", f"{README}, later runs / only load", 0.35, 0.3),
    ("load", f"{PROFILE}, first run / only load", 1.15, 1.05),
    ("load", f"{PROFILE}, later runs / only load", 0.35, 0.3),
)


def run(job: str, source: str) -> tuple[float, float, float]:
    """Return the seconds, the peak resident MB and the test accuracy of a process."""
    read, write = os.pipe()
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, SCRIPT, job, source],
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    os.close(write)
    assert process.stderr is not None
    with process.stderr:
        complaint = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    with os.fdopen(read) as file:
        said = file.read()
    if process.returncode:
        raise RuntimeError(complaint.strip().splitlines()[-1] if complaint.strip() else f"exit {process.returncode}")
    return seconds, usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024), float(said.split()[-1])


class Column:
    """What was measured of one job, round by round."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.memory: list[float] = []
        self.accuracy = float("nan")

    def add(self, seconds: float, memory: float, accuracy: float) -> None:
        """Take the figures of one process."""
        self.seconds.append(seconds)
        self.memory.append(memory)
        self.accuracy = accuracy


def race(form: str, source: str, rounds: int) -> dict[str, Column]:
    """Return the columns of a form; a first round, which fills the file cache, is not counted."""
    columns: dict[str, Column] = {}
    for job in FORMS[form]:
        try:
            run(job, source)
            columns[job] = Column()
        except RuntimeError as error:
            absent = str(error).startswith("ModuleNotFoundError") and "microfw" not in str(error)
            print(f"  {job}: {'left blank' if absent else 'FAILED'}, {error}")
    for k in range(rounds):
        for job in rotated(list(columns), k):
            columns[job].add(*run(job, source))
    return columns


def measured(columns: dict[str, Column], what: str, job: str = OURS) -> list[float] | None:
    """Return a job's figures of one kind, round by round, or None."""
    if what.endswith(" / only load"):
        job, what = what.removesuffix(" / only load"), "/ only load"
    own = columns.get(job)
    if own is None:
        return None
    if what == "peak MB":
        return own.memory
    if what == "/ only load":
        return ratios(own.seconds, columns[LOAD].seconds) if LOAD in columns else None
    other = columns.get(what.removeprefix("x faster than "))
    return ratios(other.seconds, own.seconds) if other else None


def report(form: str, columns: dict[str, Column]) -> str:
    """Return a form's table."""
    rows = [[TITLES[form], "wall, ms", "/ only load", f"{OURS} is x faster", "peak MB", "test accuracy"]]
    for job in FORMS[form]:
        column = columns.get(job)
        if column is None:
            rows.append([job, "", "", "", "", ""])
            continue
        faster = measured(columns, f"x faster than {job}")
        rows.append(
            [
                job,
                f"{statistics.median(column.seconds) * 1e3:,.0f}",
                shown(measured(columns, "/ only load", job)),
                "" if job in (LOAD, OURS) else shown(faster),
                f"{statistics.median(column.memory):,.0f}",
                "" if math.isnan(column.accuracy) else f"{column.accuracy:.1%}",
            ]
        )
    return table(rows)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="processes of each column (9)")
    parser.add_argument("--forms", default=",".join(FORMS), help=",".join(FORMS))
    options = parser.parse_args()
    print(heading("Whole process: digits, 64-64-10, 20 epochs, batch 32; start to exit", options.rounds))
    compileall.compile_dir(PACKAGE, quiet=1)  # as it is where it is installed
    good, rows = True, [["microfw against its targets", "measured", "solid", "best", ""]]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MICROFW_CACHE"] = folder  # not the user's own
        path = os.path.join(folder, "digits.npz")
        save_digits(path)
        for form in options.forms.split(","):
            columns = race(form, path if form == "npz" else "sklearn", options.rounds)
            good = good and all(job in columns for job in FORMS[form] if job not in (TORCH, JAX, SKLEARN))
            print(report(form, columns), end="\n\n", flush=True)
            for place, what, solid, best in TARGETS:
                values = measured(columns, what) if place == form else None
                if values:
                    sign = -1 if "faster" in what else 1
                    value = sign * statistics.median(values)
                    word = "best" if value <= sign * best else "solid" if value <= sign * solid else "MISSED"
                    rows.append([f"{form:7s} {what}", shown(values), f"{solid:g}", f"{best:g}", word])
    print("Medians over rounds of ratios within a round, with 95 % bootstrap intervals.\n")
    print(table(rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
