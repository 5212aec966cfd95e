"""
Searches on a cluster
=====================

A search fits many networks that have nothing to do with each other. joblib hands these fits to whatever engine it is
given: processes of this machine, or the workers of a Dask cluster. Nothing of the estimators changes, and the profiles
of all fits still arrive in one report. You should know scikit-learn's ``GridSearchCV``; reading takes five minutes.
"""

# %%
# The search
# ----------
#
# Six networks for handwritten digits, each fitted three times. The profiler is one of the callbacks of scikit-learn's
# protocol: the search copies the network, and its copies share what was set.

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import microfw as mf

X, y = load_digits(return_X_y=True)
profiler = mf.Profiler()
network = mf.estimators.NeuralClassifier(optimizer="sgd", max_iter=8, batch_size=64, random_state=0)
network.set_callbacks(profiler)
grid = {
    "neuralclassifier__hidden_layer_sizes": [(16,), (64,), (64, 64)],
    "neuralclassifier__learning_rate": [0.03, 0.1],
}
search = GridSearchCV(make_pipeline(StandardScaler(), network), grid, cv=3)

# %%
# Two workers
# -----------
#
# Dask starts the workers; ``LocalCluster`` starts them on this machine, one thread each, since a small network gains
# nothing from a second one. With ``Client("tcp://…")`` they are those of a cluster that runs already. Within
# ``joblib.parallel_config("dask")`` every fit of the search goes to one of them.
#
# The guard is needed where processes are started: a worker imports this file, and must not start workers of its own.
#
# .. code-block:: console
#
#    $ pip install ".[dask]"

try:
    import joblib
    from dask.distributed import Client, LocalCluster
except ImportError:
    Client = LocalCluster = None

if __name__ == "__main__":
    if LocalCluster is None:
        print('Fitted in this process: the cluster needs Dask, pip install ".[dask]"')
        search.fit(X, y)
    else:
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with cluster, Client(cluster), joblib.parallel_config("dask"):
            search.fit(X, y)
    print(f"best: {search.best_params_}")
    print(f"accuracy in the search: {search.best_score_:.1%}")

# %%
# One report
# ----------
#
# Each fit sent its profile home when it ended: to an inbox of this process, which a copy of the profiler finds by an
# address and a key that it carries. On one machine that is a local socket. If workers run on others, say by which name
# they reach this one, before the search: ``profiler.host = "login-node"``.

if __name__ == "__main__":
    print(profiler.report(epochs=4))

# %%
# A fit on a worker gives the weights that it gives here: the same seed, the same bits, if machine and NumPy are the
# same. So a search that ran on a cluster can be looked into later, one fit at a time.

if __name__ == "__main__":
    again = search.best_estimator_[-1]
    total = profiler.fits[-1].session.total()
    print(f"the kept network: {again.n_iter_} epochs, {np.size(again.loss_curve_)} losses")
    print(f"its backward pass: {total.backward_ns / total.steps / 1e3:.0f} µs a step")

# %%
# When a fit outgrows a machine
# -----------------------------
#
# A search is many small fits. One fit whose data are too many for a machine is split otherwise: each rank of MPI has
# the whole network and a part of the rows, and the gradients are averaged before each step. See
# ``microfw.optim.DataParallel``, and the guide *From scikit-learn's MLP to microfw*.
