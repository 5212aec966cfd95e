"""
Resume after an interruption
============================

This example kills training in the middle of an epoch and resumes it. The weights at the end are those of a run without
a stop, bit for bit. Then it saves the model in a file that other libraries read.
"""

# %%
# A run to compare with
# ---------------------
#
# The network has everything that makes resuming hard: random numbers of dropout, running statistics of batch
# normalization, momentum in the optimizer, and a new order of the rows in each epoch.

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import microfw as mf
from microfw import nn, optim
from microfw.training import Checkpoint, Hook

folder = tempfile.TemporaryDirectory()
path = Path(folder.name, "training.npz")
train, test = mf.data.load("digits", rng=0)


def make_trainer(*hooks):
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Dense(64, 48, rng=rng),
        nn.BatchNorm1D(48),
        nn.ReLU(),
        nn.Dropout(0.2, rng=rng),
        nn.Dense(48, 10, rng=rng),
    )
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"], hooks=hooks)


straight = make_trainer()
history = straight.fit(train, epochs=6, validation=test, rng=1, progress=False)
print(history)

# %%
# The same run, killed
# --------------------
#
# ``Checkpoint`` writes a file after each epoch, and here also after every ten steps. Another process trains and is
# killed at step 100, in the third epoch. It cannot save anything when it is killed.


class Kill(Hook):
    def on_step_end(self, state):
        if state.steps == 100:
            print("step 100 of epoch", state.epoch, "was the last", flush=True)
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


if hasattr(os, "fork"):
    child = os.fork()
    if not child:
        make_trainer(Checkpoint(path, every=10), Kill()).fit(train, epochs=6, validation=test, rng=1, progress=False)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("the process was ended by", signal.Signals(os.waitstatus_to_exitcode(status) * -1).name)

# %%
# The run, resumed
# ----------------
#
# Make the trainer as before and pass the file to ``fit``. It checks that model, optimizer, hooks and data are the same
# as in the file, and continues in the middle of the epoch with the remaining rows.

again = make_trainer(Checkpoint(path, every=10))
continued = again.fit(train, epochs=6, validation=test, progress=False, resume=path if path.exists() else None)
same = all(
    np.array_equal(mine, theirs)
    for mine, theirs in zip(straight.model.state_dict().values(), again.model.state_dict().values(), strict=True)
)
print("weights equal bit for bit:", same)
print("losses equal bit for bit:", continued.column("loss") == history.column("loss"))

# %%
# In your script write ``fit(..., resume=path if path.exists() else None)``. When you start the script again, it
# continues from the file. After Ctrl-C, too, the model has the state after the last complete step, and ``Checkpoint``
# saves it before ``fit`` ends.
#
# The model in a file
# -------------------
#
# ``mf.save`` writes the architecture of a model, its weights, and checksums. ``mf.load`` builds the model again. The
# file contains no code, and loading runs none: layers come from the library, or from classes that you pass.

mf.save(Path(folder.name, "digits.npz"), again.model)
model = mf.load(Path(folder.name, "digits.npz"))
print(model)
model.eval()
labels = np.argmax(model(test.X).numpy(), axis=1)
print(f"test accuracy of the loaded model: {np.mean(labels == test.y):.1%}")

# %%
# In other libraries
# ------------------
#
# If the name ends with ``.safetensors``, PyTorch, JAX and others can read the file, with the weights by name. Without
# PyTorch and safetensors, NumPy reads the weights of an ``.npz`` file. The weight of a ``Dense`` has the shape
# ``(in, out)``; the weight of PyTorch's ``Linear`` has ``(out, in)``.

exported = Path(folder.name, "digits.safetensors")
mf.save(exported, model)
try:
    from safetensors.torch import load_file

    weights = {name: tensor.numpy() for name, tensor in load_file(exported).items()}
    print("PyTorch read", len(weights), "arrays")
except ImportError:
    with np.load(Path(folder.name, "digits.npz")) as file:
        weights = {name: file[name] for name in file.files if not name.startswith("microfw.")}
    print("NumPy read", len(weights), "arrays")
print({name: array.shape for name, array in weights.items()})
print("the same numbers:", all(np.array_equal(weights[name], v) for name, v in model.state_dict().items()))

# %%
# Any tool for zip archives can list the contents of the file.

listing = subprocess.run(
    [sys.executable, "-m", "zipfile", "-l", Path(folder.name, "digits.npz")], capture_output=True, text=True, check=True
)
print(listing.stdout)
folder.cleanup()
