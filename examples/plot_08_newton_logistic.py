"""
Logistic regression by Newton's method
======================================

Gradient descent uses the slope. Newton's method also uses the curvature, which ``mf.hessian`` computes for any function
that is written in NumPy. For a convex loss of a few dozen parameters Newton's method reaches the optimum to the last
digits in about ten steps.
"""

# %%
# The loss
# --------
#
# The data are tumours with 30 measured features each, malignant or benign. A logistic regression computes for each row
# a score ``z = x @ w + b``, and the probability ``1 / (1 + exp(-z))``. Its loss is the sum of the cross-entropy of the
# labels and a penalty that keeps ``w`` small. This is scikit-learn's loss at ``C=1``.
#
# The parameters are one array of 31 numbers; the last one is ``b``.

import time

import numpy as np

import microfw as mf
from microfw import nn

train, _ = mf.data.load("breast_cancer", rng=0)
X = (train.X - train.X.mean(0)) / train.X.std(0)
X = np.hstack([X, np.ones((len(X), 1))]).astype(np.float64)
y = train.y.astype(np.float64)
penalized = np.append(np.ones(X.shape[1] - 1), 0.0)  # all but b
cross_entropy = nn.BCEWithLogitsLoss(reduction="sum")


def loss(w):
    return cross_entropy(np.matmul(X, w), y) + 0.5 * np.sum(np.square(w) * penalized)


w = np.zeros(X.shape[1])
gradient, curvature = mf.grad(loss), mf.hessian(loss)
print(f"parameters {w.size}, gradient {gradient(w).shape}, Hessian {curvature(w).shape}")

# %%
# The Hessian agrees with the formula ``X.T @ diag(p (1 - p)) @ X`` plus the penalty. You need not derive the formula.

p = 1 / (1 + np.exp(-X @ w))
by_hand = (X.T * (p * (1 - p))) @ X + np.diag(penalized)
error = np.abs(curvature(w) - by_hand).max() / np.abs(by_hand).max()
print(f"Hessian by hand: relative difference {error:.0e}")

# %%
# Newton's method
# ---------------
#
# Near ``w`` the loss is close to the parabola with the same slope and curvature. A step goes to the minimum of this
# parabola: solve ``H d = -g``, and add ``d``. If the parabola is a poor approximation, the step may be too long, so the
# example halves it until the loss decreases enough. Look at the length of the gradient: close to the optimum each step
# squares it, so the number of correct digits doubles.

began = time.perf_counter()
history = []
for step in range(20):
    value, g = mf.value_and_grad(loss)(w)
    history.append((float(value), float(np.linalg.norm(g))))
    print(f"step {step}: loss {value:.12f}, gradient {history[-1][1]:.1e}")
    if history[-1][1] < 1e-9:
        break
    direction = np.linalg.solve(curvature(w), -g)
    size = 1.0
    while loss(mf.tensor(w + size * direction)).item() > value + 0.25 * size * (g @ direction):
        size /= 2
    w = w + size * direction
seconds = time.perf_counter() - began

# %%
# Gradient descent takes many more steps and is still far from the optimum. Its step size is the largest that
# guarantees a decrease: one over the largest curvature that the loss can have.

v = np.zeros_like(w)
rate = 1 / np.linalg.eigvalsh(0.25 * X.T @ X + np.diag(penalized)).max()
slopes = []
for _ in range(500):
    g = gradient(v)
    slopes.append(float(np.linalg.norm(g)))
    v -= rate * g
print(f"Newton: {len(history) - 1} steps, gradient {history[-1][1]:.0e}")
print(f"gradient descent: {len(slopes)} steps, gradient {slopes[-1]:.0e}")

# %%
# Comparison with scikit-learn
# ----------------------------
#
# The optimum is one point, so two programs that find it agree in all digits of their tolerance.

from sklearn.linear_model import LogisticRegression

theirs = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12).fit(X[:, :-1], y)
difference = np.abs(np.append(theirs.coef_[0], theirs.intercept_) - w).max()
print(f"largest coefficient {np.abs(w).max():.3f}, largest difference from scikit-learn {difference:.0e}")
print(f"training accuracy: {np.mean((X @ w > 0) == y):.1%}")

# %%
# When the Hessian is too large
# -----------------------------
#
# The Hessian of P parameters has P² entries and takes P backward passes. ``mf.hvp`` computes its product with a vector
# in the time of about three gradients, without the Hessian itself. The method of conjugate gradients needs only such
# products to solve for the step.


def solve(product, b, tolerance=1e-12):
    """Conjugate gradients: solve H x = b, given the function that multiplies with H."""
    x, residual = np.zeros_like(b), b.copy()
    direction, square = residual.copy(), residual @ residual
    products = 0
    while square > tolerance**2 * (b @ b):
        image = product(direction)
        products += 1
        length = square / (direction @ image)
        x += length * direction
        residual -= length * image
        direction, square = residual + (residual @ residual) / square * direction, residual @ residual
    return x, products


zero = np.zeros_like(w)
step, products = solve(lambda d: mf.hvp(loss, (zero,), (d,))[0], -gradient(zero))
exact = np.linalg.solve(curvature(zero), -gradient(zero))
print(
    f"the first step by {products} products: relative difference {np.abs(step - exact).max() / np.abs(exact).max():.0e}"
)

# %%
# A figure, if Matplotlib is installed.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print('No figure: it needs Matplotlib, pip install ".[plot]"')
else:
    figure, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    axes.semilogy([slope for _, slope in history], color="#0072b2", marker="o", label="Newton")
    axes.semilogy(slopes[:60], color="#d55e00", linestyle="--", label="gradient descent")
    axes.set(xlabel="step", ylabel="length of the gradient", title="Slope, and slope with curvature")
    axes.legend()
    plt.show()
