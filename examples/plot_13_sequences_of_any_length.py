"""
Read numbers written in words
=============================

"seven" has 5 characters, "three hundred seventy-seven" has 27. A recurrent network reads such texts of different
lengths in one batch, from both ends, and learns the number.
"""

# %%
# The texts
# ---------
#
# The numbers from 0 to 999 in words, and one row of character ids for each. Shorter texts are padded with 0 to the
# length of the longest one; ``lengths`` is the number of valid characters of each row.

import numpy as np

import microfw as mf
from microfw import nn, optim

WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
ONES, TENS = WORDS.split()[:20], WORDS.split()[20:]


def in_words(number):
    if number >= 100:
        return ONES[number // 100] + " hundred" + (" " + in_words(number % 100) if number % 100 else "")
    if number < 20:
        return ONES[number]
    return TENS[number // 10 - 2] + ("-" + ONES[number % 10] if number % 10 else "")


texts = [in_words(number) for number in range(1000)]
characters = sorted(set("".join(texts)))
lengths = np.array([len(text) for text in texts])
ids = np.zeros((1000, lengths.max()), int)
for row, text in enumerate(texts):
    ids[row, : len(text)] = [characters.index(c) for c in text]
digits = np.array([[number // 100, number // 10 % 10, number % 10] for number in range(1000)])
print(f"{texts[7]!r}, {texts[377]!r}: {lengths[7]} and {lengths[377]} characters")

# %%
# The model
# ---------
#
# With ``bidirectional=True`` a layer also reads each row from its last valid character to its first. ``lengths`` goes
# to the recurrent layer: the state that it returns for a row is that after the row's last valid character, and padding
# changes neither a result nor a gradient. With two layers and two directions the states have the shape (4, N, 32); the
# last two are those of the upper layer.


class Reader(nn.Module):
    """Returns logits of three digits for each row."""

    def __init__(self, rng):
        self.vectors = nn.Embedding(len(characters), 16, rng=rng)
        self.memory = nn.GRU(16, 32, num_layers=2, bidirectional=True, rng=rng)
        self.digits = nn.Dense(64, 30, rng=rng)

    def forward(self, ids, lengths):
        _, states = self.memory(self.vectors(ids), lengths=lengths)
        return self.digits(np.concatenate([states[2], states[3]], axis=1)).reshape((-1, 10))


rng = np.random.default_rng(0)
model = Reader(rng)
print(model)

# %%
# Training
# --------
#
# The model learns 700 of the numbers. The compiled step is replayed with the lengths of each batch: rows of any lengths
# are one plan, since their arrays have the same shape.

order = rng.permutation(1000)
train, test = order[:700], order[700:]
optimizer, loss_function = optim.Adam(model.parameters(), lr=0.01), nn.CrossEntropyLoss()
step = mf.compile(lambda ids, lengths, digits: loss_function(model(ids, lengths), digits.ravel()), optimizer)
for epoch in range(10):
    total = 0.0
    for rows in np.split(rng.permutation(train), 14):
        total += step(ids[rows], lengths[rows], digits[rows]).item() / 14
    print(f"epoch {epoch + 1:2}: loss {total:.4f}")
print(step.explain().splitlines()[0])

# %%
# New numbers
# -----------
#
# The model has not seen the other 300 numbers.

with mf.no_grad():
    read = model(ids[test], lengths[test]).numpy().argmax(axis=1).reshape((-1, 3))
print(f"new numbers read: {np.mean((read == digits[test]).all(axis=1)):.0%}")
for row in range(4):
    print(f"{texts[test[row]]}: {''.join(map(str, read[row]))}")
