"""
Resume after an interruption
============================

Training is stopped in the middle of an epoch, in the roughest way there is, and goes on as if nothing had happened:
the weights at the end are those of a run that was never stopped, bit for bit. Then the model goes into a file that
other libraries read.
"""

# %%
# A run to compare with
# ---------------------
#
# The network has what makes continuing hard: noise from dropout, running statistics from batch normalization, momentum
# in the optimizer, and rows in a new order in each epoch.

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
# The same, killed
# ----------------
#
# ``Checkpoint`` writes a file after each epoch, and here after each ten steps as well. Another process trains and is
# killed at step 100, in the third epoch: it has no chance to say anything or to tidy up.


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
# And continued
# -------------
#
# A trainer that is made as before takes the file. It checks that model, optimizer, hooks and data are those that were
# saved, and goes on in the middle of the epoch, with the rows that had not had their turn.

again = make_trainer(Checkpoint(path, every=10))
continued = again.fit(train, epochs=6, validation=test, progress=False, resume=path if path.exists() else None)
same = all(
    np.array_equal(mine, theirs)
    for mine, theirs in zip(straight.model.state_dict().values(), again.model.state_dict().values(), strict=True)
)
print("weights equal bit for bit:", same)
print("losses equal bit for bit:", continued.column("loss") == history.column("loss"))

# %%
# In a script the whole thing is one line, ``fit(..., resume=path if path.exists() else None)``: started again, it
# goes on from where it was. Ctrl-C is no different: the model is then as the last complete step left it, and
# ``Checkpoint`` writes that before ``fit`` ends.
#
# The model in a file
# -------------------
#
# ``mf.save`` writes a model: how it is built, its weights, and a checksum for everything. ``mf.load`` makes it anew. No
# code is in the file, and none is run: layers come from the library, or from classes that you pass.

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
# A name that ends with ``.safetensors`` gives a file that PyTorch, JAX and others read, weights by name. Where PyTorch
# and safetensors are not installed, NumPy reads the weights of an ``.npz`` file as well. A ``Dense`` weight is
# ``(in, out)``; PyTorch's ``Linear`` has it the other way round.

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
# What is in the file can be looked at with any tool that opens zip archives.

listing = subprocess.run(
    [sys.executable, "-m", "zipfile", "-l", Path(folder.name, "digits.npz")], capture_output=True, text=True, check=True
)
print(listing.stdout)
folder.cleanup()
