"""What is handed over becomes sequences of one length, and what is neither is refused."""

import numpy as np
import pytest

from attnlearn.estimators.sequences import as_sequences, as_targets


def parts(lengths=(2, 4, 3), d=3, seed=0):
    key = np.random.default_rng(seed)
    return [key.standard_normal((k, d)) for k in lengths]


@pytest.mark.parametrize("kind", [list, tuple, lambda X: np.array(X, dtype=object)], ids=["list", "tuple", "array"])
def test_sequences_of_different_lengths_are_padded_and_cut_again(kind):
    given = parts()
    found = as_sequences(kind(given))
    assert found.X.shape == (3, 4, 3) and found.listed
    np.testing.assert_array_equal(found.mask.sum(axis=1), [2, 4, 3])
    np.testing.assert_array_equal(found.tokens, np.concatenate(given))
    for part, there in zip(found.cut(found.X), given, strict=True):
        np.testing.assert_array_equal(part, there)


def test_sequences_of_one_length_need_no_mask():
    assert as_sequences(parts((4, 4))).mask is None
    assert as_sequences(np.stack(parts((4, 4)))).mask is None


def test_precision_is_kept():
    assert as_sequences(np.ones((2, 3, 4), np.float32)).X.dtype == np.float32
    assert as_sequences([np.ones((2, 3), np.float32), np.ones((1, 3), np.float32)]).X.dtype == np.float32


def test_what_stands_in_absent_tokens_is_not_looked_at():
    X = np.stack(parts((4, 4)))
    X[1, 2:] = np.nan
    found = as_sequences(X, [[1, 1, 1, 1], [1, 1, 0, 0]])
    assert found.tokens.shape == (6, 3) and np.isfinite(found.tokens).all()


def test_single_numbers_become_a_column_where_a_sequence_has_one_row():
    found = as_sequences(parts())
    assert as_targets([1.0, 2.0, 3.0], found, "mean").shape == (3, 1)
    assert as_targets(np.ones((3, 2)), found, "last").shape == (3, 2)


@pytest.mark.parametrize(
    "X, mask, wanted",
    [
        (np.ones((5, 3)), None, r"X must be sequences of tokens \(n, k, d\), got shape \(5, 3\)"),
        ([np.ones((2, 3)), np.ones((2, 4))], None, r"X\[1\] has tokens of width 4, X\[0\] of width 3"),
        ([np.ones((2, 3)), np.full((1, 3), np.nan)], None, r"X\[1\] contains NaN"),
        ([np.ones((2, 3)), np.ones((1, 3))], np.ones((2, 2), bool), "mask goes with an array X"),
        (np.ones((2, 3, 4)), np.ones((2, 4), bool), r"mask must be \(n, k\)"),
    ],
)
def test_what_is_no_sequence_is_refused(X, mask, wanted):
    with pytest.raises(ValueError, match=wanted):
        as_sequences(X, mask)


@pytest.mark.parametrize("y", [[np.ones((2, 1))] * 3, [np.ones((k, k)) for k in (2, 4, 3)], [np.ones((2, 1))]])
def test_outputs_of_other_lengths_than_the_sequences_are_refused(y):
    with pytest.raises(ValueError, match="y must hold one array"):
        as_targets(y, as_sequences(parts()), "all")
