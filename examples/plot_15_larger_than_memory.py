"""
A training set larger than memory
=================================

This example trains on arrays in files, block by block. It measures how much memory that takes, stops in the middle of
an epoch, and resumes with the same bits.
"""

# %%
# The files
# ---------
#
# A small file here: 51 MB. The code is the same for a file of many gigabytes. ``np.load(path, mmap_mode="r")`` opens a
# file without reading it.

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np

import microfw as mf
from microfw import nn, optim
from microfw.training import Checkpoint, Hook

folder = tempfile.TemporaryDirectory()
rows, columns = 200_000, 64
X = np.lib.format.open_memmap(Path(folder.name, "X.npy"), "w+", np.float32, (rows, columns))
for start in range(0, rows, 10_000):
    X[start : start + 10_000] = np.random.default_rng(start).standard_normal((10_000, columns), np.float32)
X.flush()
np.save(Path(folder.name, "y.npy"), (X[:, 0] + X[:, 1] ** 2 > 1).astype(np.intp))
del X


def stream():
    X, y = (np.load(Path(folder.name, name), mmap_mode="r") for name in ("X.npy", "y.npy"))
    return mf.data.stream(X, y, block_bytes=1 << 22)


print(stream())

# %%
# Training
# --------
#
# An epoch reads runs of neighbouring rows in random order, 16 runs to a block, and shuffles the rows of a block.


def make_trainer(*hooks):
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Dense(columns, 32, rng=rng), nn.ReLU(), nn.Dense(32, 2, rng=rng))
    return mf.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.005), ["accuracy"], hooks)


tracemalloc.start()
whole = make_trainer()
history = whole.fit(stream(), epochs=2, batch_size=200, rng=0, progress=False)
most = tracemalloc.get_traced_memory()[1] / 2**20
tracemalloc.stop()
print(f"accuracy: {history[-1]['accuracy']:.1%}")
print(f"most memory of arrays: {most:.0f} MB")

# %%
# Stop and resume
# ---------------
#
# A stream can be resumed after any step.


class Stop(Hook):
    last = True  # after the Checkpoint

    def on_step_end(self, state):
        if state.steps == 1300:  # in the second epoch
            raise KeyboardInterrupt


path = Path(folder.name, "run.npz")
try:
    make_trainer(Checkpoint(path, every=100), Stop()).fit(stream(), epochs=2, batch_size=200, rng=0, progress=False)
except KeyboardInterrupt:
    print("stopped after step 1300")
resumed = make_trainer()
resumed.fit(stream(), epochs=2, batch_size=200, resume=path, progress=False)
equal = all(
    np.array_equal(a.data, b.data) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
)
print(f"the same weights, bit for bit: {equal}")
folder.cleanup()
