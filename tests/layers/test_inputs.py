import numpy as np
import oracles
import planted
import pytest

import attnlearn as al
from attnlearn.layers.inputs import Inputs, as_inputs

ROUNDING = 1e-13
# Padding at the end, in front, in the middle, and none.
PRESENT = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 1, 0], [1, 1, 1, 1, 1]], bool)


def of_slots(normaliser, mask):
    layer = planted.layer(0)
    return al.AttentionLayer(layer.qk, layer.ov, layer.query_bias, layer.offset, al.Slots(normaliser, mask))


@pytest.mark.slow
@pytest.mark.parametrize(
    "normaliser, mask",
    [
        (al.Softmax(), None),
        (al.Softmax(), al.Causal()),
        (al.Sigmoid(), al.Window(2)),
        (al.ReLU(), al.Causal()),
        (al.Linear(), None),
        (al.Erf(), al.Window(2)),
    ],
)
def test_answers_equal_the_definition_by_loops(normaliser, mask):
    layer, X = of_slots(normaliser, mask), planted.tokens(0, batch=4)
    for rows in ("all", "last", "mean"):
        wanted = [oracles.answers(layer, one, there, rows) for one, there in zip(X, PRESENT, strict=True)]
        np.testing.assert_allclose(layer(X, PRESENT, rows), wanted, atol=ROUNDING)
        whole = [oracles.answers(layer, one, np.ones(5, bool), rows) for one in X]
        np.testing.assert_allclose(layer(X, rows=rows), whole, atol=ROUNDING)


def test_padding_in_front_under_a_causal_mask_equals_the_definition():
    layer, X = of_slots(al.Sigmoid(), al.Causal()), planted.tokens(0, batch=4)
    wanted = [oracles.answers(layer, one, there, "last") for one, there in zip(X, PRESENT, strict=True)]
    np.testing.assert_allclose(layer(X, PRESENT, "last"), wanted, atol=ROUNDING)


def test_absent_tokens_never_matter():
    layer, X = of_slots(al.Sigmoid(), al.Causal()), planted.tokens(0, batch=4)
    other = np.where(PRESENT[..., None], X, 1e6)
    for rows in ("all", "last", "mean"):
        np.testing.assert_array_equal(layer(other, PRESENT, rows), layer(X, PRESENT, rows))


def test_padding_in_front_is_the_shorter_sequence():
    layer, X = of_slots(al.Softmax(), al.Causal()), planted.tokens(0, batch=1)
    there = np.array([[False, False, True, True, True]])
    np.testing.assert_allclose(layer(X, there)[:, 2:], layer(X[:, 2:]), atol=ROUNDING)
    np.testing.assert_allclose(layer(X, there, "mean"), layer(X[:, 2:], rows="mean"), atol=ROUNDING)


def test_what_asks_and_what_is_answered():
    inputs = Inputs(planted.tokens(0, batch=4), PRESENT, "last")
    np.testing.assert_array_equal(inputs.last, [2, 4, 3, 4])
    asking = np.array([X[t] for X, t in zip(inputs.X, inputs.last, strict=True)])
    np.testing.assert_array_equal(inputs.queries()[:, 0], asking.astype(np.float32))  # of a user who left JAX as it is
    np.testing.assert_array_equal(inputs.visible(al.Slots(mask=al.Window(2)))[2, 0], [False, False, True, True, False])
    np.testing.assert_array_equal(inputs.answered(), np.ones((4, 1), bool))
    np.testing.assert_array_equal(Inputs(inputs.X, PRESENT).answered(), PRESENT)
    assert len(inputs[1:3]) == 2 and inputs[1:3].rows == "last"


def test_an_array_stands_for_all_rows_of_its_sequences():
    inputs = as_inputs(planted.tokens(0))
    assert inputs.present is None and inputs.rows == "all"
    assert as_inputs(inputs) is inputs


def test_wrong_rows_and_masks_are_refused():
    X = planted.tokens(0, batch=4)
    inputs = Inputs(X)
    object.__setattr__(inputs, "rows", "first")  # the annotations of the tests refuse it before the check does
    with pytest.raises(ValueError, match="rows must be one of all, last, mean, got 'first'"):
        inputs.__check_init__()
    for mask in (np.zeros((4, 5), bool), PRESENT.astype(float), PRESENT[:2]):
        with pytest.raises(ValueError, match=r"wanted \(4, 5\) of bool with at least one token in every sequence"):
            planted.layer(0)(X, mask)
