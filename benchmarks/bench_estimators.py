"""Time fits of the estimators and of scikit-learn's MLPs of the same shape, solver, batches and epochs.

    python benchmarks/bench_estimators.py [--rounds N] [--jobs digits,...]

Data are in memory, scaled, float64 as scikit-learn gives them. `fit` is timed as a whole; a step of `partial_fit`
is the median of many on one batch. All times are processor times of one thread.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import interleaved

SHAPES = {"small": ((32,), 32), "wide": ((100,), 200)}
EPOCHS = 20
TARGETS = {"fit": 0.5, "partial_fit": 0.15}
JOBS = [f"{data} {shape}" for shape in SHAPES for data in ("digits", "breast_cancer", "diabetes")]
COLUMNS = ("microfw", "scikit-learn")


def estimator(column: str, classifies: bool, shape: str) -> Any:
    """Return an estimator: SGD with Nesterov's momentum, all epochs, nothing else."""
    sizes, rows = SHAPES[shape]
    same = {"batch_size": rows, "max_iter": EPOCHS, "random_state": 0, "tol": 0.0}
    if column == "microfw":
        from microfw.estimators import NeuralClassifier, NeuralRegressor

        # scikit-learn's squared error is halved, and so is its gradient
        rate = 0.01 if classifies else 0.005
        kind: Any = NeuralClassifier if classifies else NeuralRegressor
        return kind(sizes, learning_rate=rate, max_grad_norm=None, n_iter_no_change=None, optimizer="sgd", **same)
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPClassifier if classifies else MLPRegressor
    return kind(
        hidden_layer_sizes=sizes, solver="sgd", learning_rate_init=0.01, alpha=0.0, n_iter_no_change=EPOCHS + 1, **same
    )


def prepare(column: str) -> Any:
    """Load the data, and return what answers for one column."""
    import warnings

    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler, scale

    warnings.filterwarnings("ignore")  # that the epochs are over
    data = {}
    for name in ("digits", "breast_cancer", "diabetes"):
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        data[name] = StandardScaler().fit_transform(X), scale(y) if name == "diabetes" else y

    def answer(question: Any) -> Any:
        name, shape = question.split()
        X, y = data[name]
        made = estimator(column, name != "diabetes", shape)
        began = time.thread_time()
        made.fit(X, y)
        seconds = time.thread_time() - began
        rows, steps = SHAPES[shape][1], []
        X, y, score = X[:rows].copy(), y[:rows].copy(), made.score(X, y)
        for _ in range(60):
            began = time.thread_time()
            made.partial_fit(X, y)
            steps.append(time.thread_time() - began)
        return {"fit": seconds, "partial_fit": statistics.median(steps), "score": score}

    answer(JOBS[0])
    return {"ready": True}, answer


def main() -> int:
    """Measure, print the table, and return 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--worker")
    options = parser.parse_args()
    if options.worker:
        interleaved.serve(lambda: prepare(options.worker))
        return 0
    print(interleaved.heading(f"Estimators, {EPOCHS} epochs of SGD with momentum", options.rounds))
    workers = interleaved.start(__file__, COLUMNS)
    if len(workers) < len(COLUMNS):
        return 1
    rows = [["data", "hidden", "batch", "what", *(f"{c} ms" for c in COLUMNS), "ratio", "target", "scores"]]
    for job in options.jobs.split(","):
        found: dict[str, list[dict[str, float]]] = {column: [] for column in COLUMNS}
        for turn in range(options.rounds):
            for column in interleaved.rotated(COLUMNS, turn):
                found[column].append(workers[column].ask(job))
        data, shape = job.split()
        for what, target in TARGETS.items():
            ours, theirs = ([answer[what] for answer in found[column]] for column in COLUMNS)
            rows.append(
                [data, str(SHAPES[shape][0][0]), str(SHAPES[shape][1]), what]
                + [f"{statistics.median(times) * 1e3:.3f}" for times in (ours, theirs)]
                + [interleaved.shown(interleaved.ratios(ours, theirs), 3), f"{target:.2f}"]
                + [" ".join(f"{found[column][0]['score']:.3f}" for column in COLUMNS) if what == "fit" else ""]
            )
    for worker in workers.values():
        worker.close()
    print(interleaved.table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
