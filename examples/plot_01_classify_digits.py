"""
Classify digits
===============

A small network learns to read handwritten digits. The Trainer runs the loop, the history has one row for each epoch,
and the Profiler, one of the Trainer's hooks, counts what the backward passes cost.
"""

# %%
# Data
# ----
#
# ``load`` takes one of scikit-learn's toy datasets, splits it (each class in proportion), scales the features with the
# statistics of the training part, and returns two datasets of float32 arrays.

import numpy as np

import microfw as mf
from microfw import nn, optim

train, test = mf.data.load("digits", test_size=0.25, rng=0)
print(train)
print("the first row is the digit", train.target_names[train.y[0]])

# %%
# Model
# -----
#
# Everything that draws random numbers takes ``rng``, a seed or a NumPy Generator. A model prints as a tree with the
# shapes and the number of its parameters.

rng = np.random.default_rng(0)
model = nn.Sequential(nn.Dense(64, 32, rng=rng), nn.ReLU(), nn.Dense(32, 10, rng=rng))
print(model)

# %%
# Training
# --------
#
# With ``progress=True``, the default, ``fit`` shows a progress bar. With ``drop_last=True`` it leaves out the rows that
# do not fill a batch, other ones in each epoch, so that all steps are alike. ``fit`` returns the history, a list of
# plain dicts. The history prints as a table, and you can pass it to ``pandas.DataFrame``.

profiler = mf.Profiler()
trainer = mf.Trainer(
    model,
    nn.CrossEntropyLoss(),
    optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    metrics=["accuracy"],
    hooks=[profiler],
)
history = trainer.fit(train, epochs=10, batch_size=32, validation=test, rng=rng, progress=False, drop_last=True)
print(history)

# %%
# ``evaluate`` returns the loss and the metrics on a dataset, ``predict_classes`` returns labels.

result = trainer.evaluate(test)
print(f"test accuracy: {result['accuracy']:.1%}")
wrong = np.flatnonzero(trainer.predict_classes(test.X) != test.y)
print(f"{len(wrong)} of {len(test)} digits were misread")

# %%
# What the backward passes cost
# -----------------------------
#
# The report has bars for the epochs, a row for each layer, and N, P and steps. ``profiler.report(full=True)`` has all
# epochs, ops and phases. :ref:`The tutorial <sphx_glr_gallery_tutorials_train_and_read_the_backward_cost.py>` explains
# it column by column.

print(profiler.report())

# %%
# The numbers of the report are plain data. ``profiler.save("digits.profile.json")`` saves them, and
# ``microfw report digits.profile.json`` prints them again.

epoch = profiler.session.epochs[-1]
forward, backward = epoch.forward_ns / 1e6, epoch.backward_ns / 1e6
print(f"last epoch: {epoch.steps} steps, forward {forward:.1f} ms, backward {backward:.1f} ms")

# %%
# A figure, if Matplotlib is installed: the loss of each epoch.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print('No figure: it needs Matplotlib, pip install ".[plot]"')
else:
    figure, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    history.plot(axes=axes)
    axes.set(yscale="log")
    plt.show()
