"""
A decision boundary
===================

A straight line cannot separate two interleaved half circles. This example trains two models on them, one without and
one with hidden layers, and draws their probabilities over the plane.
"""

# %%
# One function trains a model of the given layer sizes. Without hidden layers the model is logistic regression.

from itertools import pairwise

import numpy as np

import microfw as mf
from microfw import nn, optim

train, test = mf.data.load("moons", rng=0)


def fitted(sizes, seed=0):
    rng = np.random.default_rng(seed)
    layers = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Dense(inputs, outputs, rng=rng), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"])
    trainer.fit(train, epochs=30, batch_size=32, rng=rng, progress=False)
    return trainer


trainers = {"no hidden layer": fitted([2, 2]), "hidden layers of 32 and 16": fitted([2, 32, 16, 2])}
for title, trainer in trainers.items():
    print(f"{title}: test accuracy {trainer.evaluate(test)['accuracy']:.1%}")

# %%
# The figure
# ----------
#
# The outputs of the models are logits. ``Softmax`` turns them into probabilities, at each point of a grid.

x, y = np.meshgrid(np.linspace(-2.5, 2.5, 200), np.linspace(-2.5, 2.5, 200))
grid = np.stack([x.ravel(), y.ravel()], axis=1)


def probability(trainer):
    with mf.no_grad():
        return nn.Softmax()(mf.tensor(trainer.predict(grid))).numpy()[:, 1].reshape(x.shape)


def plot_boundary(trainer, axes):
    """Draw the probability of the second class, the boundary and the test rows; return the axes."""
    p = probability(trainer)
    filled = axes.contourf(x, y, p, levels=np.linspace(0, 1, 11), cmap="PuOr", alpha=0.8)
    axes.contour(x, y, p, levels=[0.5], colors="black")
    for label, marker in enumerate("os"):
        rows = test.X[test.y == label]
        axes.scatter(
            *rows.T, s=14, marker=marker, color="white", edgecolor="black", linewidth=0.7, label=f"class {label}"
        )
    axes.figure.colorbar(filled, ax=axes, label="probability of class 1")
    axes.set(xlabel="first feature, standardised", ylabel="second feature, standardised")
    return axes


try:
    import matplotlib.pyplot as plt
except ImportError:
    print('No figure: it needs Matplotlib, pip install ".[plot]"')
else:
    figure, both = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axes, (title, trainer) in zip(both, trainers.items(), strict=True):
        plot_boundary(trainer, axes).set_title(title)
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, facecolor="tab:gray")
    plt.show()
