"""
Seeing the graph
================

``mf.draw(loss)`` draws the graph of a loss: every op, grouped by the layer that recorded it, and numbered in the order
in which ``loss.backward()`` visits the nodes. It needs no other program and no other package.
"""

# %%
# A classifier
# ------------
#
# This is one step of a network for handwritten digits. Draw the graph before ``backward``, which frees it. If you pass
# the model, the drawing shows the types of the layers next to their names.

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
# - A box with square corners is an op, one node of the graph, with its name, the shape of its output, and its number.
#   Backward visits number 1 first, the newest node, and each node after all nodes that use its output.
# - Round ends are a parameter. Pointed ends are another leaf that gets a gradient. A dashed box is data that needs no
#   gradient, but that a derivative rule saved: the loss saves the labels, and a ``Dense`` saves its input for the
#   gradient of its weight.
# - Arrows show the values of the forward pass. The gradients go back along the arrows.
# - Move the pointer over an op to see how many bytes it saved.
#
# The counts below the drawing are those of the profiler's report: in tensors: N op nodes, E edges, P parameter
# arrays. In scalars, a node stands for many operations on numbers, and P counts the numbers in the arrays.
# ``print`` lists the same graph in a terminal, in the order of the backward pass.

print(drawing)

# %%
# The drawing shows why this order works: no value flows to an op with a higher number.

for op in drawing.picture.ops:
    sources = [drawing.picture.ops[k].number for k in op.inputs if k < len(drawing.picture.ops)]
    assert all(op.number < number for number in sources)
print("each op is visited before all that it used")

# %%
# A weight that is used twice
# ---------------------------
#
# Here is an autoencoder that decodes with the transposed weight of its encoder, and a block that adds its input to its
# output. The weight has two arrows. A value that skips layers runs in a lane next to them.


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
# You can draw the graph of any Tensor. Here is a loss without layers, drawn from left to right:

rng = np.random.default_rng(0)
X, y = rng.normal(size=(50, 3)), rng.normal(size=50)
w = mf.tensor(np.zeros(3), requires_grad=True)
b = mf.tensor(0.0, requires_grad=True)
loss = np.mean((X @ w + b - y) ** 2)
mf.draw(loss, direction="LR")

# %%
# ``drawing.save("graph.svg")`` writes a picture for a browser, in the light or dark mode of the reader's system.
# ``drawing.save("graph.dot")`` writes the language of Graphviz. Both are also texts, ``drawing.svg`` and
# ``drawing.dot``. Here are the edges of the second one:

print(*(line for line in drawing.dot.splitlines() if "->" in line), sep="\n")

# %%
# After ``backward`` the graph is freed. The error says what to do:

loss.backward()
try:
    mf.draw(loss)
except mf.errors.GraphError as error:
    print(error)
