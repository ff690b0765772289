"""Coordinates of the frame, and the way back from them."""

import equinox as eqx
import numpy as np
import pytest

import attnlearn as al
from attnlearn._types import float64
from attnlearn.data.examples import Examples
from attnlearn.layers.features import features
from attnlearn.learners.least_squares.frame import Coordinates, Frame, Model, Moments
from tests.learners.least_squares import small

D, OUT, TOKENS, N = 4, 3, 5, 7
PRESENT = np.arange(TOKENS) < np.array([5, 3, 1, 5, 2, 4, 5])[:, None]


def some_tokens(key):
    """Correlated, with a mean of their own, for queries and keys to be whitened."""
    return key.standard_normal((N, TOKENS, D)) @ key.standard_normal((D, D)) + 3 * key.standard_normal(D)


@pytest.mark.parametrize("centred", [False, True])
def test_whitened_tokens_have_second_moment_one(key, centred):
    X = some_tokens(key).reshape(-1, D)
    white = Coordinates.of(Moments.of(X), centred)(X)
    np.testing.assert_allclose(white.T @ white / len(X), np.eye(D), atol=1e-12)
    if centred:
        np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-13)
    plain = Coordinates.of(Moments.of(X), centred, whiten=False)(X)
    np.testing.assert_allclose(plain, X - centred * X.mean(axis=0), atol=1e-14)


def test_moments_of_parts_add_up(key):
    X = some_tokens(key).reshape(-1, D)
    whole, sums = Moments.of(X), Moments.of(X[:9]) + Moments.of(X[9:])
    assert sums.count == whole.count
    np.testing.assert_allclose(sums.squares, whole.squares, rtol=1e-13)


@pytest.mark.parametrize(
    "centred, change, width",
    [
        (False, lambda X: X - X.mean(axis=-1, keepdims=True), D - 1),  # a zero sum
        (True, lambda X: X - X.mean(axis=-1, keepdims=True) + 1e3, D - 1),  # the same, far from zero
        (True, lambda X: np.eye(D)[np.argmax(X, axis=-1)], D - 1),  # one-hot
        (True, lambda X: np.full_like(X, 7.3), 1),  # all tokens the same: one direction, of zeros
        (False, lambda X: 0 * X, 1),
    ],
)
def test_directions_that_no_token_has_are_dropped(key, centred, change, width):
    X = change(key.standard_normal((40, D)))
    coordinates = Coordinates.of(Moments.of(X), centred)
    assert coordinates.basis.shape == (D, width)
    assert np.abs(coordinates(X)).max() < 10


CASES = {
    "centred": (Model(al.Slots(mask=al.Causal()), True, True), None, "all", None),
    "keys alone centred, thin": (Model(al.Slots(), False, True, 2), None, "last", PRESENT),
    "no offset": (Model(al.Slots(), True, False), None, "mean", PRESENT),
    "sigmoid": (Model(al.Slots(al.Sigmoid()), True, True), None, "all", PRESENT),
}


@pytest.mark.slow
@pytest.mark.parametrize("model, rank, rows, mask", CASES.values(), ids=CASES)
@float64
def test_the_layer_of_parameters_in_the_frame_has_their_outputs(key, model, rank, rows, mask):
    X = some_tokens(key)
    Y = key.standard_normal((N, TOKENS, OUT) if rows == "all" else (N, OUT))
    given = Examples(X, Y, mask, rows)
    frame = Frame.of(given.chunks(3), model)
    batch = frame.batch(given, model)
    outer = small.random_outer(key, batch, rank=model.head_dim)
    phi = eqx.filter_jit(features)(outer, model.slots.normaliser, batch, model.offset)
    W = key.standard_normal((phi.shape[-1], OUT))
    outputs = np.asarray(phi @ W).reshape(Y.shape)
    layer = frame.layer(outer, W, model)
    assert layer.slots == model.slots
    # Rounding of 1e-16, times the lengths of tokens and circuits in the user's coordinates.
    np.testing.assert_allclose(layer(X, mask, rows), outputs, atol=1e-11 * np.abs(outputs).max())
    if not model.offset:
        np.testing.assert_array_equal(layer.offset, 0.0)
    if not model.query_bias:
        np.testing.assert_array_equal(layer.query_bias, 0.0)


def test_absent_tokens_do_not_count(key):
    X, Y = some_tokens(key), np.ones((N, TOKENS, OUT))
    other = np.where(PRESENT[..., None], X, 1e6)
    model = Model(al.Slots(), True, True)
    frames = [Frame.of([Examples(x, Y, PRESENT)], model) for x in (X, other)]
    for name in ("queries", "keys"):
        one, two = (getattr(frame, name) for frame in frames)
        np.testing.assert_array_equal(one.basis, two.basis)
        np.testing.assert_allclose(one(X[PRESENT]).mean(axis=0), 0, atol=1e-13)
    last = Frame.of([Examples(X, Y[:, 0], PRESENT, "last")], model)
    asking = np.array([x[there][-1] for x, there in zip(X, PRESENT, strict=True)])
    np.testing.assert_allclose(last.queries.mean, asking.mean(axis=0), atol=1e-13)
