"""
Searches on a cluster
=====================

A search fits many independent networks. joblib runs these fits in processes of this machine, or on the workers of a
Dask cluster. The estimators are the same in both cases, and one report has the profiles of all fits. You should know
scikit-learn's ``GridSearchCV``; reading takes five minutes.
"""

# %%
# The search
# ----------
#
# Six networks for handwritten digits, each fitted three times.

import tempfile

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import microfw as mf

X, y = load_digits(return_X_y=True)
network = mf.estimators.NeuralClassifier(optimizer="sgd", max_iter=8, batch_size=64, random_state=0)
grid = {
    "neuralclassifier__hidden_layer_sizes": [(16,), (64,), (64, 64)],
    "neuralclassifier__learning_rate": [0.03, 0.1],
}
search = GridSearchCV(make_pipeline(StandardScaler(), network), grid, cv=3)

# %%
# A folder for the profiles
# -------------------------
#
# The profiler is a callback of the network. The search copies the network for each fit, and the copies share the
# callback. A fit in another process cannot reach this profiler: it writes its profile into one file of a folder, and
# ``profiler.fits`` reads the files. Here the folder is a temporary one. For workers on other machines, choose a folder
# that all machines share, at the same path.
#
# The guard is needed because each worker imports this file, and only the main process may run the search.

if __name__ == "__main__":
    folder = tempfile.TemporaryDirectory()
    profiler = mf.Profiler(folder=folder.name)
    network.set_callbacks(profiler)

# %%
# Two workers
# -----------
#
# ``LocalCluster`` starts two workers on this machine. One thread each is enough for a small network. To use a cluster
# that is already running, connect to it with ``Client("tcp://…")``. Inside ``joblib.parallel_config("dask")`` the
# workers run every fit of the search.
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
# Each row is a fit. The last fit of the search trains the best network again on all rows, in this process.

if __name__ == "__main__":
    print(profiler.report(epochs=4))

# %%
# The files stay in the folder. ``load_fits`` reads them later, in another session too, and returns the fits of all
# searches that used the folder.

if __name__ == "__main__":
    fits = mf.profiler.load_fits(folder.name)
    print(f"{len(fits)} profiles in the folder")

# %%
# The profile of a fitted network is also its attribute ``profile_``. With the same seed, machine and NumPy, a fit on a
# worker gives the same bits as here, so you can repeat any fit of the search.

if __name__ == "__main__":
    best = search.best_estimator_[-1]
    total = best.profile_.total()
    print(f"the kept network: {best.n_iter_} epochs, {np.size(best.loss_curve_)} losses")
    print(f"its backward pass: {total.backward_ns / total.steps / 1e3:.0f} µs a step")
    folder.cleanup()

# %%
# When a fit outgrows a machine
# -----------------------------
#
# A search is many small fits. If the data of one fit are too large for a machine, split the fit: each rank of MPI has
# the whole network and a part of the rows, and the gradients are averaged before each step. See
# ``microfw.optim.DataParallel``, and the guide *From scikit-learn's MLP to microfw*.
