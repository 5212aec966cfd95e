"""
Read a profile and make a model cheaper
=======================================

Your model is too slow, or too large. Where does its backward pass spend time, and what makes it cheaper? On this page
you profile a model with a mistake, find the mistake in the report, fix it, and check the gain: in counts, which are
the same on every machine, and in seconds, which are not.
"""

# %%
# A model with a mistake
# ----------------------
#
# The model reads digits. Its middle layer is much wider than it needs to be.

import numpy as np

import microfw as mf
from microfw import nn, optim

train, test = mf.data.load("digits", rng=0)


def wide(rng):
    return nn.Sequential(
        nn.Dense(64, 32, rng=rng), nn.ReLU(), nn.Dense(32, 512, rng=rng), nn.ReLU(), nn.Dense(512, 10, rng=rng)
    )


# %%
# A summary counts before you train. In scalars, N shows already where most of the work is:

X, y = train.X[:32], train.y[:32]
print(mf.summary(wide(0), X, y, nn.CrossEntropyLoss()))

# %%
# The drawing shows the shapes that go from layer to layer:

model = wide(0)
mf.draw(nn.CrossEntropyLoss()(model(X), y), model)

# %%
# Now train with the profiler.


def run(make, epochs=3, name=""):
    """Train a new model; return its profile, and its accuracy on the test digits."""
    rng = np.random.default_rng(0)
    model = make(rng)
    profiler = mf.Profiler(name=name)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"], hooks=[profiler])
    trainer.fit(train, epochs=epochs, batch_size=32, rng=rng, progress=False)
    return profiler.session, trainer.evaluate(test)["accuracy"]


before, accuracy = run(wide, epochs=12, name="wide")
print(before.report(full=True))
print(f"accuracy: {accuracy:.1%}")

# %%
# The summary has the N of a batch of 32 rows. The last batch of an epoch is smaller, so N and :term:`reuse` in the
# profile are means over the steps. *In FLOP* backward / forward is the same in each epoch. *In time* it varies with the
# load of the machine, and is less in most epochs: forward also spends time on few operations, such as the loss.

rows = len(train.X) / before.epochs[0].steps
times = [epoch.backward_ns / epoch.forward_ns for epoch in before.epochs]
all_steps = before.total().sum()
flops_ratio = all_steps.flops_backward / all_steps.flops_forward
print(f"rows in a step: 32 in the summary, {rows:.1f} in the mean of the profile")
print(f"backward / forward in FLOP: {flops_ratio:.2f}")
print(f"in time: {np.median(times):.2f} in the median epoch, {min(times):.2f} to {max(times):.2f} in all")

# %%
# Read the layers from right to left
# ----------------------------------
#
# The report names the layer that takes most of the time. The table of layers shows why:

print(before.report(by="layer", sort="backward", max_rows=3))

# %%
# :term:`Saved <saved>` is the memory that forward keeps for the derivatives, :term:`reuse` the number of products in
# which a step uses each weight, *FLOP* the number of :term:`operations`, *share* the share of the time. Dense layers
# use each weight once for each row, so *FLOP/P* is about the same in all of them, and the cost of a layer is
# proportional to its number of parameters.
#
# ``before.save("wide.html")`` and ``microfw report wide.json --html wide.html`` write a page with pictures. Here is the
# figure that Matplotlib draws. ``before.plot()`` alone makes a new one:

import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
before.plot(axes=axes)
plt.show()

# %%
# In numbers: how much of the operations and of the memory belongs to the 512 units in the middle? They belong to three
# layers: the one that computes them, the ReLU after it, and the one that reads them.

step = before.total()
middle = [row for row in step.layers() if row.layer in ("2", "3", "4")]
flops = sum(row.flops_backward for row in middle) / step.sum().flops_backward
saved = sum(row.saved_bytes for row in middle) / step.sum().saved_bytes
print(f"{flops:.0%} of the operations of backward, {saved:.0%} of the bytes saved for it")

# %%
# Fix the mistake
# ---------------
#
# An eighth of the width is enough.


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
# Compare counts first, because they are exact. Compare seconds only between runs in turns, round by round, because the
# speed of a machine changes with time.

a, b = mf.profiler.alternate(lambda: run(wide, name="wide")[0], lambda: run(narrow, name="narrow")[0], rounds=10)
found = mf.profiler.compare(a, b)
print(found)

# %%
# The changes after *Real* have an interval that excludes zero, and are large enough to matter. Layers that you did not
# change should not be among the large changes. They may be a little faster, because smaller arrays leave more room in
# the cache.

work = {c.what: c for c in found.counts if not c.layer}
assert work["flops_backward"].change < -0.7
print(f"operations of backward: {work['flops_backward'].change:+.0%}, bytes saved: {work['saved_bytes'].change:+.0%}")
