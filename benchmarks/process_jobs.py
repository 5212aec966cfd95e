"""The whole processes that `bench_process.py` times: load digits, train 64-64-10 for 20 epochs, print the accuracy.

    python process_jobs.py JOB (sklearn | FILE.npz)

Each job imports only what it needs, as a separate script does. The jobs in `SCRIPTS` load digits with microfw.
"""

import contextlib
import io
import os
import pathlib
import re
import sys

EPOCHS, BATCH, LR, MOMENTUM, TEST = 20, 32, 0.01, 0.9, 450


def load(source):
    """Return training and test parts of digits, through scikit-learn or from a file of arrays."""
    import numpy as np

    if source == "sklearn":
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        X, y = (X / 16).astype(np.float32), y.astype(np.int64)
    else:
        with np.load(source) as file:
            X, y = file["X"], file["y"]
    order = np.random.default_rng(0).permutation(len(X))
    return X[order[TEST:]], y[order[TEST:]], X[order[:TEST]], y[order[:TEST]]


def shuffled(X, y, epochs=EPOCHS):
    """Yield batches, in a new order every epoch."""
    import numpy as np

    rng = np.random.default_rng(1)
    for _ in range(epochs):
        order = rng.permutation(len(X))
        for at in range(0, len(X), BATCH):
            picks = order[at : at + BATCH]
            yield X[picks], y[picks]


def only_load(X, y, X_test, y_test):
    """Train nothing."""
    return float("nan")


def microfw(X, y, X_test, y_test):
    """Train with microfw, in a hand-written loop."""
    import microfw as mf
    from microfw import nn, optim

    model = nn.Sequential(nn.Dense(64, 64, rng=0), nn.ReLU(), nn.Dense(64, 10, rng=1))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    for xs, ys in shuffled(X, y):
        optimizer.zero_grad()
        loss = loss_fn(model(xs), ys)
        loss.backward()
        optimizer.step()
        loss.item()
    with mf.no_grad():
        return float((model(X_test).numpy().argmax(axis=1) == y_test).mean())


def replay(X, y, X_test, y_test):
    """Train with microfw, the step replayed."""
    import microfw as mf
    from microfw import nn, optim

    model = nn.Sequential(nn.Dense(64, 64, rng=0), nn.ReLU(), nn.Dense(64, 10, rng=1))
    loss_fn = nn.CrossEntropyLoss()
    step = mf.compile(lambda xs, ys: loss_fn(model(xs), ys), optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM))
    for xs, ys in shuffled(X, y):
        step(xs, ys).item()
    with mf.no_grad():
        return float((model(X_test).numpy().argmax(axis=1) == y_test).mean())


def torch(X, y, X_test, y_test):
    """Train with PyTorch, eager."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    loss_fn = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    for xs, ys in shuffled(X, y):
        optimizer.zero_grad()
        loss = loss_fn(model(torch.from_numpy(xs)), torch.from_numpy(ys))
        loss.backward()
        optimizer.step()
        loss.item()
    with torch.no_grad():
        return float((model(torch.from_numpy(X_test)).argmax(1).numpy() == y_test).mean())


def jax(X, y, X_test, y_test):
    """Train with a jitted step of JAX; the short last batch of an epoch compiles a second one."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    layers = [
        (jnp.asarray(rng.normal(0, np.sqrt(2 / n), (n, m)), jnp.float32), jnp.zeros(m)) for n, m in ((64, 64), (64, 10))
    ]

    def logits(layers, X):
        (V, c), (W, b) = layers
        return jax.nn.relu(X @ V + c) @ W + b

    def loss_of(layers, X, y):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(layers, X)), y[:, None], axis=1).mean()

    @jax.jit
    def update(layers, speeds, X, y):
        loss, gradients = jax.value_and_grad(loss_of)(layers, X, y)
        speeds = jax.tree.map(lambda v, g: MOMENTUM * v + g, speeds, gradients)
        return jax.tree.map(lambda p, v: p - LR * v, layers, speeds), speeds, loss

    speeds = jax.tree.map(jnp.zeros_like, layers)
    for xs, ys in shuffled(X, y):
        layers, speeds, loss = update(layers, speeds, xs, ys)
        float(loss)
    return float((np.asarray(logits(layers, X_test)).argmax(1) == y_test).mean())


def mlp(X, y, X_test, y_test):
    """Train scikit-learn's own network with the same settings."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        (64,), solver="sgd", alpha=0, batch_size=BATCH, learning_rate_init=LR, momentum=MOMENTUM,
        nesterovs_momentum=False, max_iter=EPOCHS, tol=0, n_iter_no_change=EPOCHS + 1, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 20 epochs may not be the end is meant
        model.fit(X, y)
    return float(model.score(X_test, y_test))


def readme():
    """Run the script of the README."""
    text = pathlib.Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    scope = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], scope)
    return scope["trainer"].evaluate(scope["test"])["accuracy"]


def profile():
    """Run ``microfw profile digits``."""
    from microfw.cli.main import main

    assert main(["profile", "digits"]) == 0
    return float("nan")


SCRIPTS = {"README's script": readme, "microfw profile digits": profile}

JOBS = {
    "only load the data": only_load,
    "microfw": microfw,
    "microfw replay": replay,
    "PyTorch eager": torch,
    "JAX jit": jax,
    "MLPClassifier": mlp,
}

if __name__ == "__main__":
    job, _, when = sys.argv[1].partition(", ")
    if job in SCRIPTS:
        if when == "first run":  # later ones find the file of an earlier process
            os.environ["MICROFW_CACHE"] = os.path.join(os.environ["MICROFW_CACHE"], str(os.getpid()))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            accuracy = SCRIPTS[job]()
        print(accuracy)
    else:
        print(JOBS[job](*load(sys.argv[2])))
