"""
Seeing the graph
================

``mf.draw(loss)`` draws the graph that ``loss.backward()`` is about to walk: every op, grouped by the layer that
recorded it, with its number in the order in which backward visits the nodes. It needs no other program, and
no other package.
"""

# %%
# A classifier
# ------------
#
# One step of a network for handwritten digits. The drawing has to be made before ``backward``, which frees the
# graph as it goes. Passing the model adds the kinds of the layers to their names.

import numpy as np

import microfw as mf
from microfw import nn

train, _ = mf.data.load("digits", test_size=0.25, rng=0)
model = nn.Sequential(nn.Dense(64, 32, rng=0), nn.ReLU(), nn.Dense(32, 10, rng=1))
loss = nn.CrossEntropyLoss()(model(train.X[:32]), train.y[:32])
drawing = mf.draw(loss, model)
drawing

# %%
# How to read it:
#
# - A box with square corners is an op, one node of the graph: its name, the shape of its output, and its number.
#   Backward visits 1 first, the newest, and then each node once all that used it has been visited.
# - Round ends: a parameter. Pointed ends: another leaf that gets a gradient. Dashes: data that needs none, but that
#   a derivative rule saved; the loss keeps the labels, and a ``Dense`` keeps its input, for the weight's gradient.
# - Arrows show values going forward. Gradients go back along each of them, and along nothing else.
# - Rest the pointer on an op to see how many bytes it saved.
#
# The counts below the drawing are those of the profiler's report: N op nodes, E edges, P trainable numbers.
# ``print`` lists the same graph in a terminal, in the order of the walk.

print(drawing)

# %%
# What the walk relies on can be read off: no value flows to an op with a higher number.

for op in drawing.picture.ops:
    sources = [drawing.picture.ops[k].number for k in op.inputs if k < len(drawing.picture.ops)]
    assert all(op.number < number for number in sources)
print("each op is visited before all that it used")

# %%
# A weight that is used twice
# ---------------------------
#
# An autoencoder that decodes with the transposed weight of its encoder, and a block that adds its input to its
# output. The weight has two arrows, and the values that skip something run in a lane beside it.


class Skip(nn.Module):
    def __init__(self, *layers):
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.body(x)


class Autoencoder(nn.Module):
    def __init__(self):
        self.encode = nn.Dense(64, 16, rng=0)
        self.block = Skip(nn.Dense(16, 16, rng=1), nn.Tanh())

    def forward(self, x):
        return self.block(self.encode(x)) @ self.encode.weight.T


x = train.X[:32].astype(np.float32)
model = Autoencoder()
loss = nn.MSELoss()(model(x), x)
mf.draw(loss, model)

# %%
# Without layers
# --------------
#
# Any Tensor will do. Here a loss written by hand, drawn from left to right:

rng = np.random.default_rng(0)
X, y = rng.normal(size=(50, 3)), rng.normal(size=50)
w = mf.tensor(np.zeros(3), requires_grad=True)
b = mf.tensor(0.0, requires_grad=True)
loss = np.mean((X @ w + b - y) ** 2)
mf.draw(loss, direction="LR")

# %%
# ``drawing.save("graph.svg")`` writes a picture for a browser, on a light or a dark ground as the reader's system
# is set; ``drawing.save("graph.dot")`` writes the language of Graphviz. Both are texts, ``drawing.svg`` and
# ``drawing.dot``. Of the latter, the edges:

print(*(line for line in drawing.dot.splitlines() if "->" in line), sep="\n")

# %%
# After ``backward`` there is nothing left to draw, and the error says what to do:

loss.backward()
try:
    mf.draw(loss)
except mf.errors.GraphError as error:
    print(error)
