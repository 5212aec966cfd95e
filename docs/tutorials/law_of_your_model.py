"""
N + P on your own model, and how it grows
=========================================

:doc:`/n_plus_p` explains N + P on one net. On this page you ask the same of your own models: ``mf.profiler.law``
computes one gradient by five strategies and counts the steps of each, and ``mf.profiler.sweep`` shows how the counts
grow. It takes a quarter of an hour. Every number was counted or measured when the page was built.
"""

# %%
# A model of your own
# -------------------
#
# The law takes any Module, a loss and data. Here is the graph of four nodes from :doc:`/n_plus_p`, as a Module:

import numpy as np

import microfw as mf
from microfw import nn


class ByHand(nn.Module):
    def __init__(self):
        self.u = nn.Parameter(2.0)
        self.v = nn.Parameter(3.0)

    def forward(self, x):
        a = self.u * self.v
        b = a + self.u
        c = a * b
        return b + c


by_hand = mf.profiler.law(ByHand(), lambda result, y: result, [0], [0])
for way in by_hand.ways:
    print(f"{way.name:25} in {way.graph}: {way.rules} rules called, {way.forwards} times forward")
scalars = by_hand.count("scalars")
print(f"N = {scalars.N}, P = {scalars.P}, steps = {scalars.rules} + {scalars.accumulated} = {scalars.steps}")

# %%
# ``mf.draw`` draws the graph. The numbers are the order of the backward pass:

mf.draw(ByHand()(None), direction="LR")

# %%
# The five strategies are backpropagation, the chain rule per parameter, all paths, forward mode and differences.
# *Forward again, from its layer on* of :doc:`/n_plus_p` is not among them. *Forward mode* is new: it goes through the
# graph in the order of computation, together with the derivatives with respect to *one* parameter, so it takes a pass
# for each parameter. *Differences* change a parameter a little and compute the result again: P + 1 times if one-sided,
# 2P times if central.
#
# On digits
# ---------
#
# Now 64-32-10: 64 pixels, 32 hidden units, 10 digits. ``microfw law digits`` does the same.

train, _ = mf.data.load("digits", rng=0)
rng = np.random.default_rng(0)
model = nn.Sequential(nn.Dense(64, 32, rng=rng), nn.ReLU(), nn.Dense(32, 10, rng=rng))
law = mf.profiler.law(model, nn.CrossEntropyLoss(), train.X, train.y, name="digits")
print(law)

# %%
# The seconds are of this run; those of :doc:`/n_plus_p` are of another. In *Backward against forward* they are the
# fastest of some steps of one row, in float64, neither replayed nor profiled; a profile times other steps.
#
# In seconds the strategies are nearer to each other than in operations, because most of the time of a small model goes
# into calls of NumPy, one for each node, for arrays of any size. Compare *peak*, too: backpropagation keeps the values
# of the forward pass, differences keep nothing.
#
# Backprop in scalars calls more rules than it takes operations: the rule of an addition hands its gradient on, which
# takes none. A matrix product counts its additions, too.
#
# On a convolution
# ----------------
#
# A convolution applies the same few weights at every position of an image, so P is small and N is large. Here are the
# digits as images of 8 by 8 pixels: four filters of 3 by 3, max pooling over 2 by 2, and a dense layer.

images = train.X.reshape(-1, 1, 8, 8)
rng = np.random.default_rng(0)
convolutional = nn.Sequential(
    nn.Conv2D(1, 4, 3, padding=1, rng=rng), nn.Tanh(), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(64, 10, rng=rng)
)
conv = mf.profiler.law(convolutional, nn.CrossEntropyLoss(), images, train.y, name="digits")
print(conv)

# %%
# Count with a pencil. A filter has 9 weights and a bias, and it computes one number at each of 8 · 8 positions: 9
# products, 8 additions, and one more addition for the bias.

filters, places, weights = 4, 8 * 8, 3 * 3
by_pencil = filters * places * (weights + (weights - 1) + 1)
count = conv.count("scalars")
used = {row.layer: row.uses for row in conv.layers}
trained = filters * (weights + 1)
print(f"the convolution: {by_pencil:,} of N = {count.N:,} nodes, for {trained} of P = {count.P} parameters")
assert used["0"] == places * trained

alone = mf.profiler.law(convolutional[0], lambda outputs, y: outputs.sum(), images, train.y, budget=0.1)
summed = filters * places - 1  # additions of the sum over the outputs
nodes = alone.count("scalars").N
assert by_pencil + summed == nodes

# %%
# Again each node is visited once: backprop called exactly N rules. But the convolution uses each weight at every
# position, so backprop *adds* a gradient to the weight for every position. These are the steps beyond N + P.
#
# .. _below-2:
#
# In scalars there are in any net less than twice as many steps as N + P. Each node has at most two inputs, so there are
# at most 2N edges. Each node except the last is the input of at least one edge. So at most N + 1 edges end in
# parameters, each one use. Steps are N + uses, at most 2N + 1,
# which is less than 2 × (N + P).

steps, size = count.steps, count.N + count.P
print(f"backprop: {count.rules:,} rules + {count.accumulated:,} gradients added = {steps:,} steps")
print(f"{steps / size:.2f} times N + P")
assert count.rules == count.N
assert size <= steps < 2 * size

# %%
# What does a parameter cost? A dense layer of any size uses each weight in one product for each row of data. A
# convolution uses each weight in one product for every position:

cost = {row.layer: (row.forward + row.backward) / row.parameters for row in conv.layers if row.parameters}
uses = {row.layer: row.uses / row.parameters for row in conv.layers if row.parameters}
for layer, kind in (("0", "convolution"), ("4", "the last layer, dense")):
    print(f"{kind}: {cost[layer]:.0f} operations for each parameter, which a row uses {uses[layer]:.0f} times")

# %%
# The number of operations follows the number of uses. Each use takes a product and an addition forward, and the same
# backward for the gradient of the weight (in the dense layer also for the gradient of its input). So the number of
# parameters alone is a poor estimate of the cost of a gradient, and N + P is right within a
# factor of 2:

for name, found in (("two dense layers", law), ("with a convolution", conv)):
    count = found.count("scalars")
    print(f"{name}: P = {count.P:,}, N + P = {count.N + count.P:,}, backprop took {count.steps:,} steps")

# %%
# How it grows
# ------------
#
# Now make the model larger: a network with 8 units in each layer, on the four features of iris, with more and more
# layers.

iris, _ = mf.data.load("iris", rng=0)
growth = mf.profiler.sweep("depth", iris.X, iris.y, values=(4, 8, 16, 32), budget=0.1, name="iris")
print(growth)

# %%
# The steps of backprop grow with the first power of N + P. Methods that go through the graph, or compute the loss, once
# for each parameter grow with about the second power. There are too many paths to follow; they are only counted.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
growth.plot(axes=axes)
plt.show()

# %%
# A sweep over the batch gives every strategy an exponent of about 1: P stays, so the exponents are those of N, and
# N × P grows as N does.
#
# The limits
# ----------
#
# - A step back takes more operations than a step forward: the derivative of a product takes two products. Together,
#   forward and backward take at most about three to five times the operations of forward alone; the report above has
#   the bounds with their sources.
# - A backward pass starts at one number. For m results there are m backward passes. With many results and few
#   parameters, forward mode is cheaper.
#
# Exercises
# ---------
#
# Guess first, then open the answer.
#
# 1. Add a node ``M = L · u`` to the graph by hand. What are N, P, the steps of backprop, and the number of visits if
#    you start over for each parameter?
#
# .. raw:: html
#
#    <details><summary>Answer</summary>


class WithOneMore(ByHand):
    def forward(self, x):
        return super().forward(x) * self.u


more = mf.profiler.law(WithOneMore(), lambda result, y: result, [0], [0])
count = more.count("scalars")
print(f"N = {count.N}, P = {count.P}, steps = {count.rules} + {count.accumulated} = {count.steps}")
print(f"one parameter at a time: {more.way('chain rule per parameter').rules} visits, N × P = {count.N * count.P}")

# %%
# .. raw:: html
#
#    </details>
#
# 2. In a chain of n doublings, how many visits does a recursion along the paths make, and how many does the pass for
#    each parameter make?
#
# .. raw:: html
#
#    <details><summary>Answer</summary>


class Doublings(nn.Module):
    def __init__(self, n):
        self.n = n
        self.x = nn.Parameter(1.0)

    def forward(self, _):
        end = self.x
        for _ in range(self.n):
            end = end + end
        return end


for n in (3, 6, 9):
    result = mf.profiler.law(Doublings(n), lambda result, y: result, [0], [0])
    along, each = result.way("paths, no memory").rules, result.way("chain rule per parameter").rules
    print(f"n = {n}: {along} visits along the paths, {each} for the one parameter")
    assert (along, each) == (2**n - 1, n)

# %%
# 2ⁿ - 1 and n: with one parameter, starting over for each parameter *is* backpropagation.
#
# .. raw:: html
#
#    </details>
