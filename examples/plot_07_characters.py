"""
Write like a lighthouse keeper
==============================

A recurrent network reads a text character by character and learns to predict the next one. Then it writes a new text.
The profile shows what the backward pass through time costs, layer by layer.
"""

# %%
# The text
# --------
#
# A log book, written for this example. Like most log books it repeats itself, so a short text is enough.

import numpy as np

import microfw as mf
from microfw import nn, optim

TEXT = """
monday. the wind is from the west and the sea is grey. i lit the lamp at six and it burned all night. two ships
went by, one to the north and one to the south. the cat slept on the stairs. nothing else was seen.
tuesday. the wind is from the north and the sea is white. i lit the lamp at five and it burned all night. one ship
went by, to the south. the cat caught a mouse on the stairs. i wrote a letter to my sister. nothing else was seen.
wednesday. no wind, and the sea is green. i lit the lamp at six and it burned till four, when the oil ran out. no ship
went by. i filled the lamp and cleaned the glass. the cat slept on the letter. nothing else was seen.
thursday. the wind is from the east and the sea is grey. i lit the lamp at six and it burned all night. three ships
went by, two to the north and one to the south. the boat came with oil and bread, and took the letter to my sister.
the cat slept on the bread. nothing else was seen.
friday. the wind is from the west and the sea is black. i lit the lamp at four and it burned all night. one ship
came near to the rocks, saw the light, and went by to the north. i did not sleep. the cat slept on the stairs.
saturday. the wind is from the west and the sea is white. i lit the lamp at five and it burned all night. no ship
went by. i cleaned the glass and the stairs. the cat caught a mouse on the rocks. nothing else was seen.
sunday. no wind, and the sea is blue. i lit the lamp at six and it burned all night. two ships went by, both to the
south. i wrote a letter to my sister and read it to the cat. the cat slept. nothing else was seen.
"""
TEXT = " ".join(TEXT.split()) + " "
characters = sorted(set(TEXT))
ids = np.array([characters.index(c) for c in TEXT])
print(f"{len(TEXT):,} characters, {len(characters)} different ones")

# %%
# The model
# ---------
#
# ``Embedding`` has a vector for each character, ``LSTM`` reads the vectors in order, and ``Dense`` computes a logit for
# each possible next character. The recurrent layer returns its output after every step, and its state after the last
# step. Pass the state to the next call to continue reading.


class Writer(nn.Module):
    """Predicts the next character at each character of a text."""

    def __init__(self, characters, hidden, rng):
        self.vectors = nn.Embedding(characters, 16, rng=rng)
        self.memory = nn.LSTM(16, hidden, rng=rng)
        self.next = nn.Dense(hidden, characters, rng=rng)

    def forward(self, ids, state=None):
        outputs, state = self.memory(self.vectors(ids), state)
        return self.next(outputs), state


rng = np.random.default_rng(0)
model = Writer(len(characters), 64, rng)
print(model)

# %%
# Training
# --------
#
# A step takes 16 pieces of the text, 32 characters each. The targets are the same pieces, one character later. The loss
# needs a row for each prediction, so rows and steps become one axis. Gradients through time are sometimes very large;
# these are scaled down.
#
# The next step reads on: its pieces begin where these end, with the state that the network has then. ``detach`` cuts
# the state from the graph, so that no gradient goes further back than one piece. This is called truncated
# backpropagation through time. Behind the end the text begins again.

optimizer = optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
loss_function = nn.CrossEntropyLoss()
losses = []


def clip(parameters, most=1.0):
    length = np.sqrt(sum(np.sum(np.square(p.grad)) for p in parameters))
    for p in parameters:
        p.grad *= min(1.0, most / length)


at, state = np.arange(16) * (len(ids) // 16), None
with mf.Profiler(model, name="characters") as profiler:
    for epoch in range(8):
        total = 0.0
        for _ in range(50):
            pieces = ids[(at[:, None] + np.arange(33)) % len(ids)]
            at += 32
            optimizer.zero_grad()
            logits, (h, c) = model(pieces[:, :-1], state)
            state = h.detach(), c.detach()
            loss = loss_function(logits.reshape((-1, len(characters))), pieces[:, 1:].ravel())
            loss.backward()
            clip(model.parameters())
            optimizer.step()
            total += loss.item()
        profiler.end_epoch()
        losses.append(total / 50)
        print(f"epoch {epoch + 1:2}: loss {losses[-1]:.3f}, as if it chose among {np.exp(losses[-1]):4.1f} characters")

# %%
# Writing
# -------
#
# The model reads a beginning. Then, again and again, the example draws a character from the predicted probabilities,
# and the model reads it. Between two calls the model keeps only the state.


def write(beginning, length, temperature=0.5):
    text, state, new = beginning, None, beginning
    with mf.no_grad():
        for _ in range(length):
            logits, state = model([[characters.index(c) for c in new]], state)
            p = nn.Softmax()(logits[0, -1] / temperature).numpy().astype(float)
            new = characters[rng.choice(len(characters), p=p / p.sum())]
            text += new
    return text


sample = write("monday. the ", 240)
print(sample)
words = set(TEXT.replace(",", "").replace(".", "").split())
written = sample.replace(",", "").replace(".", "").split()[:-1]
print(f"known words: {np.mean([word in words for word in written]):.0%}")

# %%
# What the backward pass costs
# ----------------------------
#
# The recurrence is one node of the graph for pieces of any length: for a thousand characters ``memory`` would have the
# same number of nodes, but more operations.

print(profiler.report(by="layer"))

# %%
# A figure, if Matplotlib is installed: the loss, and the backward time of each layer.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print('No figure: it needs Matplotlib, pip install ".[plot]"')
else:
    rows = profiler.session.total().layers()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.plot(range(1, len(losses) + 1), losses, "o-", color="#0072b2")
    left.set(xlabel="epoch", ylabel="cross-entropy", title="Loss by epoch")
    right.barh([row.layer for row in rows], [row.backward_ns / 1e6 for row in rows], color="#d55e00")
    right.invert_yaxis()
    right.set(xlabel="time of backward in all epochs, ms", title="Layers")
    plt.show()
