"""
Schedules, and knowing when to stop
===================================

The size and the number of the steps decide how good a model becomes. This example finds a learning rate with a range
test, compares three schedules, and ends training when the model no longer improves.
"""

# %%
# The model
# ---------
#
# A small network for handwritten digits. Each run makes a new network with the same weights.

import numpy as np

import microfw as mf
from microfw import nn, optim
from microfw.optim import schedules
from microfw.training import EarlyStopping, LearningRate, WeightAveraging, lr_range_test

train, test = mf.data.load("digits", rng=0)
EPOCHS, BATCH = 15, 32
STEPS = EPOCHS * -(-len(train) // BATCH)


def trainer(hooks=(), lr=0.1, **options):
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Dense(64, 32, rng=rng), nn.ReLU(), nn.Dropout(0.2, rng=rng), nn.Dense(32, 10, rng=rng))
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"], hooks=hooks, **options)


# %%
# A first learning rate
# ---------------------
#
# The test trains for 100 steps with a rate that increases from step to step, and then restores the model. The rate at
# which the loss falls fastest is a good maximum for a schedule. For a constant rate take a smaller one.

found = lr_range_test(trainer(), train, batch_size=BATCH, rng=0)
print(f"range test: the loss falls fastest at a rate of {found.suggestion:.3f}")

# %%
# Three schedules
# ---------------
#
# A schedule is a function of the step. ``LearningRate`` sets the rate before each step. The history has the rate of the
# last step of each epoch.

top = found.suggestion
runs = {
    "constant": lambda step: top,
    "cosine": schedules.WarmUp(schedules.Cosine(top, steps=STEPS - 45), steps=45),
    "one cycle": schedules.OneCycle(top, steps=STEPS),
}
histories = {}
for name, schedule in runs.items():
    fit = trainer([LearningRate(schedule)]).fit
    histories[name] = fit(train, EPOCHS, BATCH, validation=test, rng=1, progress=False)
    last = histories[name][-1]
    print(f"{name}: val_loss {last['val_loss']:.3f} at the last epoch, gradient norm {last['gradient_norm']:.2f}")

# %%
# When to stop
# ------------
#
# You cannot know in advance how many epochs are enough. ``EarlyStopping`` ends training when the validation loss has
# not improved for ``patience`` epochs, and restores the best weights. Here it uses averaged weights, whose loss varies
# less. Gradients are clipped.

stopping = EarlyStopping("val_loss", patience=10)
averaging = WeightAveraging(decay=0.99, keep=False)
stopped = trainer([stopping, averaging], lr=top / 3, clip_norm=5.0)
history = stopped.fit(train, 200, BATCH, validation=test, rng=1, progress=False)
print(f"stopped after {len(history)} of 200 epochs, best at {stopping.best_epoch}")

result = stopped.evaluate(test)
assert result["loss"] == min(history.column("val_loss"))
print(f"test accuracy with the best weights: {result['accuracy']:.1%}")

# %%
# The figure
# ----------
#
# ``plot`` draws into the axes that you pass. This example uses the test data for validation, so the last accuracy is a
# little too high. With more data, hold out a third part.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print('No figure: it needs Matplotlib, pip install ".[plot]"')
else:
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    found.plot(axes[0, 0])
    for name, history_of_run in histories.items():
        for column, place in (("lr", axes[0, 1]), ("val_loss", axes[1, 0])):
            history_of_run.plot(column, axes=place, label=name)
    axes[1, 0].set_yscale("log")
    history.plot(axes=axes[1, 1])
    axes[1, 1].set(yscale="log")
    axes[1, 1].axvline(stopping.best_epoch, color=axes[1, 1].xaxis.label.get_color(), linestyle=":")
    axes[1, 1].annotate(" best weights", (stopping.best_epoch, 0.9), xycoords=("data", "axes fraction"))
    plt.show()
