"""Features against their definition by loops, and features times coefficients against the layer's outputs."""

import numpy as np
import oracles
import planted
import pytest

import attnlearn as al
from attnlearn._types import float64
from attnlearn.layers.features import Batch, Outer, features
from attnlearn.layers.inputs import Inputs

ROUNDING = 1e-13
D, TOKENS, HEADS, RANK = 4, 5, 2, 3
PRESENT = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 1, 0], [1, 1, 1, 1, 1]], bool)


def an_outer(key, low_rank, query_bias):
    d_q = D + query_bias
    if not low_rank:
        return Outer(key.standard_normal((HEADS, d_q, D)))
    thin = [(HEADS, d_q, RANK), (HEADS, D, RANK), (HEADS, D, RANK)]
    return Outer(*(key.standard_normal(shape) for shape in thin))


def dense(outer):
    """Score matrix and V of each head."""
    scores = outer.queries if outer.keys is None else outer.queries @ outer.keys.swapaxes(1, 2)
    values = [np.eye(D)] * HEADS if outer.values is None else outer.values
    return list(zip(scores, values, strict=True))


@float64
def found(outer, inputs, slots, query_bias, offset, labels=None):
    n, rows = len(inputs), TOKENS if inputs.rows == "all" else 1
    batch = Batch.of(inputs, np.zeros((n, rows, 2)) if labels is None else labels, slots, query_bias)
    return batch, np.asarray(features(outer, slots.normaliser, batch, offset))


@pytest.mark.slow
@pytest.mark.parametrize(
    "low_rank, query_bias, offset, rows, slots",
    [
        (False, False, False, "all", al.Slots()),
        (False, True, True, "last", al.Slots(mask=al.Causal())),
        (True, True, True, "all", al.Slots(al.Sigmoid(), al.Window(2))),
        (True, False, True, "mean", al.Slots(al.ReLU())),
    ],
)
def test_features_equal_the_definition_by_loops(key, low_rank, query_bias, offset, rows, slots):
    outer, X = an_outer(key, low_rank, query_bias), planted.tokens(0, D, TOKENS, len(PRESENT))
    for present, there in ((PRESENT, PRESENT), (None, np.ones_like(PRESENT))):
        _, phi = found(outer, Inputs(X, present, rows), slots, query_bias, offset)
        wanted = [
            oracles.features(one, seen, rows, dense(outer), slots, offset) for one, seen in zip(X, there, strict=True)
        ]
        np.testing.assert_allclose(phi, wanted, atol=ROUNDING)


@pytest.mark.parametrize("rows", ["all", "last", "mean"])
def test_features_times_coefficients_are_the_outputs_of_the_layer(rows):
    layer = planted.layer(0, (HEADS, D, 3), al.Causal())
    inputs = Inputs(planted.tokens(0, D, TOKENS, len(PRESENT)), PRESENT, rows)
    outer = Outer(np.concatenate([layer.qk, layer.query_bias[:, None]], axis=1))
    W = np.concatenate([layer.ov.reshape(-1, 3), layer.offset[None]])
    _, phi = found(outer, inputs, layer.slots, True, True)
    outputs = (phi @ W).reshape(*layer(inputs.X, PRESENT, rows).shape)
    np.testing.assert_allclose(outputs, layer(inputs.X, PRESENT, rows), atol=ROUNDING)


@pytest.mark.parametrize("rows", ["all", "last", "mean"])
@float64
def test_rows_without_a_label_carry_nothing(key, rows):
    inputs = Inputs(planted.tokens(0, D, TOKENS, len(PRESENT)), PRESENT, rows)
    batch, phi = found(an_outer(key, False, True), inputs, al.Slots(), True, True)
    np.testing.assert_array_equal(batch.answered(), inputs.answered())
    np.testing.assert_array_equal(phi[~np.asarray(inputs.answered())], 0.0)
    np.testing.assert_array_equal(phi[..., -1], inputs.answered())


@pytest.mark.parametrize("rows", ["all", "mean"])
@float64
def test_padding_sequences_adds_rows_that_are_not_read(key, rows):
    inputs = Inputs(planted.tokens(0, D, TOKENS, len(PRESENT)), None, rows)
    labels = key.standard_normal((4, TOKENS if rows == "all" else 1, 2))
    outer = an_outer(key, False, True)
    for normaliser in (al.Softmax(), al.ReLU()):
        batch, phi = found(outer, inputs, al.Slots(normaliser), True, True, labels)
        longer = batch.padded(3)
        assert len(longer.labels) == 6 and len(batch.padded(4).labels) == 4
        more = np.asarray(features(outer, normaliser, longer, True))
        np.testing.assert_allclose(more[:4], phi, atol=ROUNDING)
        np.testing.assert_array_equal(more[4:], 0.0)
        np.testing.assert_array_equal(longer.labels[4:], 0.0)
