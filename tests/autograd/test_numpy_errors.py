"""NumPy's functions on Tensors: wrong shapes, wrong arguments and singular matrices are named."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw.errors import ArgumentError, ShapeError, SingularError
from tests.cases.linalg import definite
from tests.cases.numpy_functions import A


@pytest.mark.parametrize(("call", "text"), [
    (lambda x: np.squeeze(x, 0), r"^squeeze: expected axes of length 1 at \(0,\), got \(3, 4\)"),
    (lambda x: np.split(x, 2), r"^split: expected a number of parts that divides 3, got 2; or use np.array_split"),
    (lambda x: np.array_split(x, 0), r"^array_split: expected at least one part, got 0"),
    (lambda x: np.dsplit(x, 2), r"^dsplit: expected at least 3 axes, got \(3, 4\)"),
    (lambda x: np.moveaxis(x, (0, 1), 0), r"^moveaxis: expected a place for each of the axes \(0, 1\), got \(0,\)"),
    (lambda x: np.matrix_transpose(x[0]), r"^matrix_transpose: expected at least two axes, got \(4,\)"),
    (lambda x: np.rot90(x, 1, (0, 0)), r"^rot90: expected two axes, got \(0, 0\)"),
    (lambda x: np.diagonal(x[0]), r"^diagonal: expected at least two axes, got \(4,\)"),
    (lambda x: np.diagonal(x, 0, 1, 1), r"^diagonal: expected two axes, got \(1, 1\)"),
    (lambda x: np.diag(x[None]), r"^diag: expected a vector or a matrix, got \(1, 3, 4\); use np.diagonal"),
    (lambda x: np.tensordot(x, x, 1), r"^tensordot: expected axes \(1,\) and \(0,\) of the same lengths, got"),
    (lambda x: np.tensordot(x, x, 3), r"^tensordot: expected 3 axes in both, got"),
    (lambda x: np.cross(x, x), r"^cross: expected 3 entries along axis -1, got \(3, 4\)"),
    (lambda x: np.vecdot(x[:, :1], x), r"^vecdot: expected as many entries along axis -1 of both, got \(3, 1\), \(3, 4\)"),
    (lambda x: np.vecdot(x[0, 0], x), r"^vecdot: expected as many entries"),
    (lambda x: np.linalg.outer(x, x[0]), r"^linalg.outer: expected two vectors, got \(3, 4\), \(4,\)"),
    (lambda x: np.linalg.multi_dot([x, x[:1]]), r"^multi_dot: expected two or more matrices that fit, .* got \(3, 4\), \(1, 4\)"),
    (lambda x: np.linalg.multi_dot([x]), r"^multi_dot: expected two or more matrices"),
    (lambda x: np.linalg.multi_dot([x, x[0], x]), r"^multi_dot: expected two or more matrices"),
    (lambda x: np.linalg.multi_dot([x[None], x.T]), r"^multi_dot: expected two or more matrices"),
    (lambda x: np.einsum("ij,jk->ik", x, x), r"^einsum ij,jk->ik: expected one length of 'j', got \(4, 3\)"),
    (lambda x: np.einsum("ii->i", x), r"^einsum ii->i: expected one length of 'i', got \(3, 4\)"),
    (lambda x: np.einsum("ijk->i", x), r"^einsum ijk->i: expected an operand with the axes 'ijk', got one with 2"),
    (lambda x: np.einsum("i->i", x), r"^einsum i->i: expected an operand with the axes 'i', got one with 2"),
    (lambda x: np.linalg.inv(x), r"^inv: expected square matrices in the last two axes, got \(3, 4\)"),
    (lambda x: np.linalg.det(x[0]), r"^det: expected square matrices in the last two axes, got \(4,\)"),
    (lambda x: np.linalg.cholesky(x), r"^cholesky: expected square matrices"),
    (lambda x: np.linalg.slogdet(x), r"^slogdet: expected square matrices"),
    (lambda x: np.linalg.matrix_power(x, 2), r"^matrix_power: expected square matrices"),
    (lambda x: np.linalg.solve(x[:, :3], x[:2]), r"^solve: expected right-hand sides of 3 rows, as the matrices have, got \(2, 4\)"),
    (lambda x: np.linalg.solve(x[:, :3], x[0, 0]), r"^solve: expected right-hand sides of 3 rows"),
])  # fmt: skip
def test_wrong_shapes_are_named(call, text):
    with pytest.raises(ShapeError, match=text):
        call(mf.tensor(A, requires_grad=True))


@pytest.mark.skipif(not hasattr(np, "matvec"), reason="NumPy 2.2 and later")
def test_products_of_matrices_and_vectors_have_as_many_axes():
    x = mf.tensor(A)
    with pytest.raises(ShapeError, match=r"^matvec: expected matrices and vectors, got \(4,\), \(4,\)"):
        np.matvec(x[0], x[0])
    with pytest.raises(ShapeError, match=r"^vecmat: expected vectors and matrices, got \(3, 4\), \(4,\)"):
        np.vecmat(x, x[0])


@pytest.mark.parametrize(("call", "text"), [
    (lambda x: np.linalg.norm(x, axis=()), r"^norm: expected one or two axes of the array, got axis=\(\) of shape \(3, 4\)"),
    (lambda x: np.linalg.norm(x[0, 0], axis=0), r"^norm: expected one or two axes of the array, got axis=0 of shape \(\)"),
    (lambda x: np.meshgrid(x[0], x[0], indexing="yx"), r"^meshgrid: expected indexing of 'xy' or 'ij', got 'yx'"),
    (lambda x: np.pad(x, 1, mode="mean"), r"^pad: expected mode to be one of constant, edge, reflect, symmetric, wrap, got 'mean'"),
    (lambda x: np.pad(x, 1, mode="edge", constant_values=1), r"^pad: expected no options but \[\] for mode 'edge', got \['constant_values'\]"),
    (lambda x: np.pad(x, -1), r"^pad: expected widths that are integers, 0 or more, got -1"),
    (lambda x: np.pad(x, 0.5), r"^pad: expected widths that are integers"),
    (lambda x: np.take(x, 0, mode="no"), r"^take: expected mode 'raise', 'wrap' or 'clip', got 'no'"),
    (lambda x: np.einsum("ij,jk->ik", x), r"^einsum: expected names for 1 operands, as 'ij,jk->ik', got"),
    (lambda x: np.einsum("i1->i", x), r"^einsum: expected names for 1 operands"),
    (lambda x: np.einsum("ij->ik", x), r"^einsum: expected each name of the result once, and in an operand, got"),
    (lambda x: np.einsum("ij->ii", x), r"^einsum: expected each name of the result once"),
    (lambda x: np.einsum("...j->j", x), r"^einsum: expected each name of the result once"),
])  # fmt: skip
def test_wrong_arguments_are_named(call, text):
    with pytest.raises(ArgumentError, match=text):
        call(mf.tensor(A, requires_grad=True))


SINGULAR = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 4.0]]])


@pytest.mark.parametrize(("call", "text"), [
    (lambda x: np.linalg.inv(x[1]), r"^inv: expected matrices that have an inverse, got a singular one; look for rows that depend on each other, or add"),
    (lambda x: np.linalg.inv(x), r"^inv: expected matrices that have an inverse, got a singular one at \(1,\); look"),
    (lambda x: np.linalg.solve(x, np.ones((2, 1))), r"^solve: expected matrices that have an inverse, got a singular one at \(1,\)"),
    (lambda x: np.linalg.solve(x[1], np.ones(2)), r"^solve: expected matrices that have an inverse, got a singular one; look"),
    (lambda x: np.linalg.matrix_power(x, -2), r"^inv: expected matrices that have an inverse"),
    (lambda x: np.linalg.cholesky(-x), r"^cholesky: expected positive definite matrices, got one that is not at \(0,\); add a small multiple"),
    (lambda x: np.linalg.det(x).sum().backward(), r"^derivative of det: expected matrices that have an inverse, got a singular one at \(1,\)"),
])  # fmt: skip
def test_singular_matrices_are_named(call, text):
    for kind in (SingularError, ArgumentError, np.linalg.LinAlgError):
        with pytest.raises(kind, match=text):
            call(mf.tensor(SINGULAR, requires_grad=True))


def test_determinants_of_singular_matrices_have_a_value():
    x = mf.tensor(SINGULAR, requires_grad=True)
    assert np.linalg.det(x).tolist() == [1, 0]
    sign, log = np.linalg.slogdet(x)
    assert sign.tolist() == [1, 0] and log.tolist() == [0, -np.inf]
    assert not sign.requires_grad
    with pytest.raises(SingularError, match="derivative of slogdet"):
        log[1].backward()


def test_gradient_of_cholesky_goes_to_the_triangle_that_is_read():
    a = definite()
    x = mf.tensor(a, requires_grad=True)
    np.sum(np.linalg.cholesky(x)).backward()
    assert not np.triu(x.grad, 1).any() and (x.grad != 0).sum() == 6
