"""
Why N + P and not N × P
=======================

*With N computations and P parameters, backpropagation computes all P derivatives in about N + P steps. Starting over
for each parameter takes up to N × P steps.* This page shows why. First you work on a graph of four nodes, by hand and
with a counter on every node. Then you compute the same gradient of a network that reads digits in five ways, and run
each of them. Then comes a convolution, which uses each of its few parameters many times.

You need to know the chain rule, and half an hour. Every number on the page was counted or measured when the page was
built.
"""

# %%
# A graph to work by hand
# -----------------------
#
# Two parameters, *u* and *v*, and four computations:
#
# .. code-block:: text
#
#    u, v          parameters
#    a = u · v
#    b = a + u
#    c = a · b
#    L = b + c     the result
#
# The computations are the nodes: N = 4. The parameters are P = 2. The forward pass computes each node once. Next to its
# value we write, for each of its inputs, the *local derivative*: how much the node changes if only this input changes.

import time
from collections import Counter

import numpy as np

import microfw as mf
from microfw import nn


def forward(u, v):
    """Return the value of L, and each node's inputs with their local derivatives, in the order of computation."""
    a = u * v
    b = a + u
    c = a * b
    L = b + c
    graph = {
        "a": {"u": v, "v": u},
        "b": {"a": 1.0, "u": 1.0},
        "c": {"a": b, "b": a},
        "L": {"b": 1.0, "c": 1.0},
    }
    return L, graph


value, graph = forward(2.0, 3.0)
print("L =", value)
for node, inputs in graph.items():
    print(node, "from", inputs)

# %%
# You can read a local derivative off the node. No derivative *of the result* has been computed yet.
#
# Backpropagation
# ---------------
#
# Let *g* of a node be the derivative of L with respect to this node. For L itself g is 1. One rule gives all others:
# each node passes its g times the local derivative to each of its inputs, and an input **adds** what it gets.
#
# A node must have its complete g before it passes it on. So the nodes are visited in the reverse order of computation:
# every node that uses a value was computed after it.


def backpropagate(graph, visits):
    """Return the derivative of L with respect to every node and parameter."""
    g = Counter({"L": 1.0})
    for node in reversed(graph):
        visits[node] += 1
        for parent, slope in graph[node].items():
            g[parent] += g[node] * slope
    return g


visits = Counter()
g = backpropagate(graph, visits)
for node in ("L", "c", "b", "a", "v", "u"):
    print(f"g({node}) = {g[node]:g}")
print("visits:", dict(visits))

# %%
# Do it with a pencil: g(c) = 1. Then g(b) = 1 + g(c) · a, and g(a) = g(b) + g(c) · b. At the end,
# dL/dv = g(a) · u, and dL/du = g(a) · v + g(b).
#
# Each of the N nodes was visited once, although three of the values are used twice. The parameters got three
# contributions: *u* is used twice and *v* once. So there are a few more steps than N + P, but at most twice as many, if
# each node has at most two inputs:

N, P = len(graph), 2
added = sum(parent in "uv" for inputs in graph.values() for parent in inputs)
steps = sum(visits.values()) + added
print(f"N + P = {N} + {P} = {N + P}; steps = {sum(visits.values())} visits + {added} added = {steps}")
assert N + P <= steps <= 2 * (N + P)

# %%
# Starting over for each parameter
# --------------------------------
#
# Now compute dL/du, discard everything, and compute dL/dv. For one parameter only the nodes between it and the result
# matter: its *chain*. So for each parameter find its chain, and go back over the chain:


def for_each_parameter(graph, visits):
    """Return the derivatives, each from a separate backward pass."""
    derivatives = {}
    for parameter in "uv":
        chain = {parameter}
        for node, inputs in graph.items():
            if chain & set(inputs):
                chain.add(node)
        g = Counter({"L": 1.0})
        for node in reversed(graph):
            if node in chain:
                visits[node] += 1
                for parent, slope in graph[node].items():
                    g[parent] += g[node] * slope
        derivatives[parameter] = g[parameter]
    return derivatives


visits_each = Counter()
derivatives = for_each_parameter(graph, visits_each)
assert derivatives == {"u": g["u"], "v": g["v"]}
print("visits:", dict(visits_each), "together", sum(visits_each.values()))
print("N × P =", N * P)

# %%
# In this graph both parameters are at the beginning, so both chains are the whole graph, and the number of visits
# reaches the bound N × P. The two passes compute the same g(a), g(b) and g(c). Backpropagation computes these once.
#
# Without order: along the paths
# ------------------------------
#
# A method can take even more steps. If each node passes on each contribution *as soon as it arrives*, then it is
# visited once for each path that leads to it:


def along_paths(graph, visits, node="L", share=1.0, g=None):
    """Return the derivatives, computed by a recursion without memory."""
    g = Counter() if g is None else g
    g[node] += share
    if node in graph:
        visits[node] += 1
        for parent, slope in graph[node].items():
            along_paths(graph, visits, parent, share * slope, g)
    return g


visits_paths = Counter()
assert along_paths(graph, visits_paths)["u"] == g["u"]
print("visits:", dict(visits_paths), "together", sum(visits_paths.values()))

# %%
# Two paths lead to *b*, three to *a*. In a small graph these are few. In a chain of such graphs the numbers of paths
# multiply, while the numbers of nodes add up. Here is a graph of the engine, with a number that is doubled repeatedly:

from microfw.law.strategies import count_paths

for doublings in (1, 4, 16, 64):
    x = end = mf.tensor(1.0, requires_grad=True)
    for _ in range(doublings):
        end = end + end
    paths, recursion = count_paths(end._node)
    print(f"N = {doublings:2}, P = 1: {paths:,} paths, {recursion:,} visits by recursion")

# %%
# So N × P is not the worst case of all methods. It is the worst case of methods that go through the graph *once for
# each parameter*.
#
# The same in the engine
# ----------------------
#
# ``mf.profiler.law`` computes the gradient of a model by five strategies and counts their steps. Here is the graph from
# above:


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
    print(f"{way.name:25} on {way.graph}: {way.rules} rules called, {way.forwards} times forward")
scalars = by_hand.count("scalars")
assert (scalars.N, scalars.P, scalars.steps) == (N, P, steps)
assert by_hand.way("chain rule per parameter").rules == sum(visits_each.values())
assert by_hand.way("paths, no memory").rules == sum(visits_paths.values())

# %%
# The counts are those from above. Two strategies are new. *Forward mode* goes through the graph in the order of
# computation, together with the derivatives with respect to *one* parameter, so it takes a pass for each parameter.
# *Differences* change a parameter a little and compute the result again: P + 1 times, or 2P times for differences to
# both sides.
#
# On digits
# ---------
#
# Now a network: 64 pixels, 32 hidden units, 10 digits. The command ``microfw law digits`` does the same.

train, _ = mf.data.load("digits", rng=0)
rng = np.random.default_rng(0)
model = nn.Sequential(nn.Dense(64, 32, rng=rng), nn.ReLU(), nn.Dense(32, 10, rng=rng))
began = time.perf_counter()
law = mf.profiler.law(model, nn.CrossEntropyLoss(), train.X, train.y, name="digits")
print(law)
print(f"\nAll of this took {time.perf_counter() - began:.1f} s.")

# %%
# *In tensors* a node is an operation on whole arrays. The model has only a few of them, so N + P in tensors says little
# about the cost. *In scalars* each addition and each product is a node: the same engine computed the same model number
# by number, on one row of the data. This is the N of the first sentence.
#
# The strategies side by side, by the number of steps:

import matplotlib.pyplot as plt

scalars = law.count("scalars")
bars = {
    "backprop: steps": scalars.steps,
    "N + P": scalars.N + scalars.P,
    "along the paths: rules": law.way("paths, no memory").rules,
    "for each parameter: rules": law.way("chain rule per parameter").rules,
    "forward mode: operations": law.way("forward mode").operations,
    "N × P, the bound": scalars.N * scalars.P,
    "differences, one side: operations": law.way("one-sided differences").operations,
    "differences, both sides: operations": law.way("central differences").operations,
}
bars = {name: count for name, count in bars.items() if count is not None}
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
drawn = axes.barh(list(bars), list(bars.values()), color=["#0072b2", "#56b4e9"] + ["#e69f00"] * (len(bars) - 2))
axes.bar_label(drawn, labels=[f"{count:,}" for count in bars.values()], padding=4)
axes.set(xscale="log", xlabel="for one gradient, on one row of digits", xlim=(1e3, 1e9))
axes.invert_yaxis()
plt.show()

# %%
# Starting over for each parameter took fewer steps than the bound, because the chain of a weight does not contain the
# products of the other weights. The recursion along the paths is not the slowest method here: it makes one pass for all
# parameters, and with one hidden layer there are few paths. Each further layer multiplies their number by its width.

chain = law.way("chain rule per parameter").rules
print(f"{chain:,} of {scalars.N * scalars.P:,}: {chain / (scalars.N * scalars.P):.1%} of N × P")
print(f"{chain / scalars.steps:.0f} times the steps of backprop")

# %%
# On a convolution
# ----------------
#
# A convolution applies the same few weights at every position of an image, so P is small and N is large. Here are the
# digits again, as images of 8 by 8 pixels: four filters of 3 by 3, max pooling over 2 by 2, and a dense layer.

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
# In total there are less than twice as many steps as N + P. Each node has at most two inputs, so there are at most 2N
# edges. Each node except the last is the input of at least one edge. So at most about N edges end in parameters.

steps, size = count.steps, count.N + count.P
print(f"backprop: {count.rules:,} rules + {count.accumulated:,} gradients added = {steps:,} steps")
print(f"{steps / size:.2f} times N + P")
assert count.rules == count.N
assert size <= steps <= 2 * size

# %%
# What does a parameter cost? A dense layer of any size uses each weight in one product for each row of data. A
# convolution uses each weight in one product for every position:

cost = {row.layer: (row.forward + row.backward) / row.parameters for row in conv.layers if row.parameters}
uses = {row.layer: row.uses / row.parameters for row in conv.layers if row.parameters}
for layer, kind in (("0", "convolution"), ("4", "dense layer")):
    print(f"{kind}: {cost[layer]:.0f} operations for each parameter, which a row uses {uses[layer]:.0f} times")

# %%
# The number of operations follows the number of uses. Each use takes a product and an addition forward, and the same
# backward for the gradient of the weight (in the dense layer also for the gradient of its input). So the number of
# parameters alone is a poor estimate of the cost of a gradient, and N + P is a good one:

for name, found in (("two dense layers", law), ("with a convolution", conv)):
    count = found.count("scalars")
    print(f"{name}: P = {count.P:,}, N + P = {count.N + count.P:,}, backprop took {count.steps:,} steps")

# %%
# .. admonition:: What N is not
#
#    - **Not the neurons.** N counts computations. A neuron with k inputs is k products, k additions with its
#      bias, and its activation.
#    - **Not the features.** Features are constants: no derivative with respect to them is computed. P does not count
#      them either.
#    - **Not the layers, and not the lines of code.** In tensors N is about the number of array operations. In scalars
#      N is about the number of arithmetic operations of the forward pass.
#    - **Not derivatives from the forward pass.** Forward mode computes derivatives on the way forward, and takes a pass
#      for each parameter. Backpropagation computes values on the way forward and saves what the derivatives need. It
#      computes the derivatives on the way back, one rule for each node.
#    - **Not the size of the training set.** N is counted for one step. A batch of more rows has more nodes, and
#      the same P.
#
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

figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
growth.plot(axes=axes)
plt.show()

# %%
# Two bugs
# --------
#
# Both parts of the rule matter: *add* the contributions, and pass g on *when it is complete*. Here are two versions of
# backpropagation that each break one part. To check them, declare the whole graph as one op with their derivatives, and
# let ``mf.gradcheck`` compare with differences:


def check(backward, name):
    """Return True if the derivatives of a backward pass are right, and print the result."""

    def by(parameter):
        return lambda g, u, v: g * backward(forward(u, v)[1])[parameter]

    @mf.op(vjp=(by("u"), by("v")), name=name)
    def whole(u, v):
        return np.asarray(forward(u, v)[0])

    try:
        error = mf.gradcheck(whole, 2.0, 3.0)
        print(f"{name}: right, to {error:.0e}")
        return True
    except mf.errors.GradientError as wrong:
        print(f"{name}: {wrong}")
        return False


assert check(lambda graph: backpropagate(graph, Counter()), "as_it_should_be")

# %%
# **Bug 1: = instead of +=.** The last contribution replaces the others.


def forgets(graph):
    g = Counter({"L": 1.0})
    for node in reversed(graph):
        for parent, slope in graph[node].items():
            g[parent] = g[node] * slope
    return g


assert not check(forgets, "assigned")

# %%
# In a graph that uses every value once, this version gives the right answer. The bug shows only when a value is used
# twice.
#
# **Bug 2: a recursion without order.** This version visits each node once, as backpropagation does, but as soon as it
# reaches the node. Later contributions are added to g and never passed on.


def hasty(graph):
    g = Counter({"L": 1.0})
    visited = set()

    def visit(node):
        visited.add(node)
        for parent, slope in graph.get(node, {}).items():
            g[parent] += g[node] * slope
            if parent not in visited:
                visit(parent)

    visit("L")
    return g


assert not check(hasty, "without_order")

# %%
# This version is as fast as backpropagation, but wrong: it passes a gradient on before all parts have arrived. The
# recursion along all paths is the opposite: right, but slow, with a visit for each path.
#
# .. admonition:: The limits
#
#    - **Constants.** A step back takes more operations than a step forward: the derivative of a product takes two
#      products. Together, forward and backward take at most about three to five times the operations of forward alone;
#      the table above has the bounds with their sources.
#    - **Memory.** Backpropagation keeps values of the forward pass until the backward pass has used them. Differences
#      keep nothing. Compare the column *peak*.
#    - **Operations are not seconds.** In a small model most of the time goes into calls of NumPy, one for each node,
#      for arrays of any size. So differences look better in seconds than in operations. This is also the reason why
#      graphs have nodes for whole tensors.
#    - **N × P is a bound.** The number of steps for each parameter depends on the graph. If all parameters are at the
#      beginning, as in the graph by hand, the number reaches the bound. In the network above it is far below.
#    - **One result.** A backward pass starts at one number. For m results there are m backward passes. With many
#      results and few parameters, forward mode is cheaper.
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
# 2. Take four rows of digits instead of one. Which of N, E and P change, and how does steps / (N + P) change?
#
# .. raw:: html
#
#    <details><summary>Answer</summary>

small = nn.Sequential(nn.Dense(64, 4, rng=0), nn.ReLU(), nn.Dense(4, 10, rng=1))
for rows in (1, 4):
    result = mf.profiler.law(small, nn.CrossEntropyLoss(), train.X, train.y, rows=rows, budget=0.5)
    count = result.count("scalars")
    ratio = count.steps / (count.N + count.P)
    print(f"{rows} rows: N = {count.N:,}, E = {count.E:,}, P = {count.P:,}, steps / (N + P) = {ratio:.2f}")

# %%
# The model computes each row separately, so N and E grow with the number of rows. It uses each weight once for each
# row, so it adds a gradient to the weight once for each row. P does not change.
#
# .. raw:: html
#
#    </details>
#
# 3. In a chain of n doublings, how many visits does a recursion along the paths make, and how many does the pass for
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
#
# 4. Freeze the first layer of the digits model, ``model[0].requires_grad_(False)``. What happens to N, and why
#    by so much?
#
# .. raw:: html
#
#    <details><summary>Answer</summary>

model[0].requires_grad_(False)
frozen = mf.profiler.law(model, nn.CrossEntropyLoss(), train.X, train.y, budget=0.5).count("scalars")
print(f"N = {frozen.N:,} instead of {scalars.N:,}, P = {frozen.P:,} instead of {scalars.P:,}")

# %%
# Ops that depend on no trainable parameter record no node. The whole first layer is now a constant.
#
# .. raw:: html
#
#    </details>
