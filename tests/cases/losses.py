"""The table of losses: a row for each."""

from __future__ import annotations

import numpy as np

from microfw import nn
from tests.cases.ops import floats

LABELS = np.array([2, 0, 1, 2, 2])
Z = floats((5, 3), -3, 3)
T = floats((5, 3), -3, 3, seed=4) + 0.031
SIGNS = np.where(floats((5, 3), seed=5) > 0, 1.0, -1.0)
SHARES = floats((5, 3), 0.05, 0.9, seed=6)
WEIGHT = np.array([0.5, 2.0, 1.0])
PROBABILITIES = SHARES / SHARES.sum(1, keepdims=True)
COUNTS = np.array([[0.0, 1.0, 2.0], [5.0, 0.0, 3.0], [1.0, 1.0, 4.0], [0.0, 0.0, 7.0], [2.0, 3.0, 1.0]])
TOGETHER = np.array([1, -1, 1, -1, -1])

# A row for each loss: its class, its options, a target, and its values entry by entry.
LOSSES = {
    "MSELoss": (nn.MSELoss, {}, T, lambda z, t: (z - t) ** 2),
    "L1Loss": (nn.L1Loss, {}, T, lambda z, t: abs(z - t)),
    "HuberLoss": (
        nn.HuberLoss, {"delta": 0.7}, T, lambda z, t: np.where(abs(z - t) <= 0.7, (z - t) ** 2 / 2, 0.7 * (abs(z - t) - 0.35)),
    ),
    "HingeLoss": (nn.HingeLoss, {}, SIGNS, lambda z, t: np.maximum(0, 1 - t * z)),
    "BCEWithLogitsLoss": (
        nn.BCEWithLogitsLoss, {}, SHARES, lambda z, t: -t * np.log(1 / (1 + np.exp(-z))) - (1 - t) * np.log(1 / (1 + np.exp(z))),
    ),
    "CrossEntropyLoss": (nn.CrossEntropyLoss, {}, LABELS, lambda z, y: -logp(z)[np.arange(len(y)), y]),
    "CrossEntropyLoss smoothed": (
        nn.CrossEntropyLoss, {"label_smoothing": 0.1}, LABELS, lambda z, y: -np.sum((0.9 * np.eye(3)[y] + 0.1 / 3) * logp(z), 1),
    ),
    "CrossEntropyLoss of probabilities": (nn.CrossEntropyLoss, {}, PROBABILITIES, lambda z, t: -np.sum(t * logp(z), 1)),
    "CrossEntropyLoss of probabilities, weighted": (
        nn.CrossEntropyLoss, {"weight": WEIGHT, "label_smoothing": 0.1}, PROBABILITIES,
        lambda z, t: -np.sum(WEIGHT * (0.9 * t + 0.1 / 3) * logp(z), 1),
    ),
    "BCEWithLogitsLoss weighted": (
        nn.BCEWithLogitsLoss, {"weight": WEIGHT, "pos_weight": WEIGHT[::-1]}, SHARES,
        lambda z, t: WEIGHT * (WEIGHT[::-1] * t * np.log1p(np.exp(-z)) + (1 - t) * np.log1p(np.exp(z))),
    ),
    "NLLLoss": (nn.NLLLoss, {}, LABELS, lambda z, y: -z[np.arange(len(y)), y]),
    "KLDivLoss": (nn.KLDivLoss, {}, SHARES, lambda z, t: np.sum(t * (np.log(t) - z), 1)),
    "KLDivLoss of logarithms": (nn.KLDivLoss, {"log_target": True}, np.log(SHARES), lambda z, t: np.sum(np.exp(t) * (t - z), 1)),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, {}, COUNTS, lambda z, t: np.exp(z) - t * z),
    "PoissonNLLLoss full": (nn.PoissonNLLLoss, {"full": True}, COUNTS, lambda z, t: np.exp(z) - t * z + stirling(t)),
}  # fmt: skip

# Losses of a tuple: besides, the rest of the tuple and the target.
TUPLES = {
    "GaussianNLLLoss": (nn.GaussianNLLLoss, {}, SHARES, T, lambda z, v, t: (np.log(v) + (z - t) ** 2 / v) / 2),
    "GaussianNLLLoss full": (
        nn.GaussianNLLLoss, {"full": True}, SHARES, T, lambda z, v, t: (np.log(2 * np.pi * v) + (z - t) ** 2 / v) / 2,
    ),
}  # fmt: skip

# Losses of more than one prediction: besides, the other arguments.
VECTORS = {
    "CosineEmbeddingLoss": (
        nn.CosineEmbeddingLoss, {"margin": -0.2}, (T, TOGETHER),
        lambda a, b, t: np.where(t == 1, 1 - cosine(a, b), np.maximum(cosine(a, b) + 0.2, 0)),
    ),
    "TripletMarginLoss": (
        nn.TripletMarginLoss, {"margin": 2.5}, (T, SHARES),
        lambda a, p, n: np.maximum(np.linalg.norm(a - p, axis=1) - np.linalg.norm(a - n, axis=1) + 2.5, 0),
    ),
    "TripletMarginLoss swapped": (
        nn.TripletMarginLoss, {"swap": True}, (T, SHARES),
        lambda a, p, n: np.maximum(
            np.linalg.norm(a - p, axis=1) - np.minimum(np.linalg.norm(a - n, axis=1), np.linalg.norm(p - n, axis=1)) + 1, 0
        ),
    ),
}  # fmt: skip


def stirling(t):
    s = np.where(t > 1, t, 1)
    return np.where(t > 1, s * np.log(s) - s + 0.5 * np.log(2 * np.pi * s), 0)


def cosine(a, b):
    return np.sum(a * b, 1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def logp(z):
    return z - np.log(np.exp(z).sum(1, keepdims=True))
