"""
Read a profile and make a model cheaper
=======================================

A model is too slow, or too large. Where does its backward pass go, what would help, and did it? This page
profiles a model with a mistake in it, finds the mistake in the report, mends it, and checks the gain, in counts, which
are the same on every machine, and in seconds, which are not.
"""

# %%
# A model with a mistake
# ----------------------
#
# It reads digits. Somebody was generous with the middle layer.

import numpy as np

import microfw as mf
from microfw import nn, optim

train, test = mf.data.load("digits", rng=0)


def wide(rng):
    return nn.Sequential(
        nn.Dense(64, 32, rng=rng), nn.ReLU(), nn.Dense(32, 512, rng=rng), nn.ReLU(), nn.Dense(512, 10, rng=rng)
    )


def run(make, epochs=3, name=""):
    """Train a fresh model; return its profile and how well it reads the digits it has not seen."""
    rng = np.random.default_rng(0)
    model = make(rng)
    profiler = mf.Profiler(name=name)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"], hooks=[profiler])
    trainer.fit(train, epochs=epochs, batch_size=32, rng=rng, progress=False)
    return profiler.session, trainer.evaluate(test)["accuracy"]


before, accuracy = run(wide, epochs=12, name="wide")
print(before.report())
print(f"accuracy: {accuracy:.1%}")

# %%
# Read the layers from right to left
# ----------------------------------
#
# *Saved* is what forward keeps because a derivative needs it, *reuse* how often a step uses each weight, *FLOP* is the
# work, *share* is the time. Dense layers use a weight once for each row, so *FLOP/P* is about the same in all of them:
# here the cost of a layer is its number of parameters. The same, sorted:

print(before.report(by="layer", sort="backward", max_rows=3))

# %%
# The page says it in a picture: ``before.save("wide.html")`` writes it, and so does
# ``microfw report wide.json --html wide.html``. Here is matplotlib's:

figure = before.plot()

# %%
# In numbers: how much of the work and of the memory hangs on the 512 units in the middle, in the layer that makes them,
# the ReLU after it, and the layer that reads them?

step = before.total()
middle = [row for row in step.layers() if row.layer in ("2", "3", "4")]
flops = sum(row.flops_backward for row in middle) / step.sum().flops_backward
saved = sum(row.saved_bytes for row in middle) / step.sum().saved_bytes
print(f"{flops:.0%} of the operations of backward, {saved:.0%} of the bytes saved for it")

# %%
# Mend it
# -------
#
# An eighth of the width should do.


def narrow(rng):
    return nn.Sequential(
        nn.Dense(64, 32, rng=rng), nn.ReLU(), nn.Dense(32, 64, rng=rng), nn.ReLU(), nn.Dense(64, 10, rng=rng)
    )


after, narrow_accuracy = run(narrow, epochs=12, name="narrow")
print(f"accuracy: {accuracy:.1%} before, {narrow_accuracy:.1%} after")

# %%
# Did it help?
# ------------
#
# Counts first: they are exact. Seconds only of runs made alternately, round by round, for a machine is faster now and
# slower then.

a, b = mf.profiler.alternate(lambda: run(wide, name="wide")[0], lambda: run(narrow, name="narrow")[0], rounds=10)
found = mf.profiler.compare(a, b)
print(found)

# %%
# What stands behind *Real* has an interval that leaves zero out, and is large enough to matter. The layers that were
# not touched should not be among the large changes; a little faster they may be, since smaller arrays leave more
# room in the cache.

work = {c.what: c for c in found.counts if not c.layer}
assert work["flops_backward"].change < -0.7
print(f"operations of backward: {work['flops_backward'].change:+.0%}, bytes saved: {work['saved_bytes'].change:+.0%}")
