"""Examples: what is accepted at the door, what is refused and how, and what is counted."""

import jax.numpy as jnp
import numpy as np
import pytest

import attnlearn as al
from attnlearn.data import stored
from attnlearn.layers.inputs import Inputs

N, K, D, D_OUT = 6, 4, 3, 2


@pytest.fixture
def X(key):
    return key.standard_normal((N, K, D))


@pytest.fixture
def Y(key):
    return key.standard_normal((N, K, D_OUT))


@pytest.fixture
def mask():
    return np.arange(K) < np.array([4, 1, 2, 3, 4, 2])[:, None]


def test_sizes_are_counted(X, Y, mask):
    full, padded = al.Examples(X, Y), al.Examples(X, Y, mask)
    assert (len(full), full.width, full.width_out) == (N, D, D_OUT)
    assert (full.tokens, full.answers, full.scalars) == (24, 24, 48)
    assert (padded.tokens, padded.answers, padded.scalars) == (16, 16, 32)
    pooled = al.Examples(X, Y[:, 0], mask, rows="mean")
    assert (pooled.tokens, pooled.answers, pooled.scalars) == (16, 6, 12)
    assert repr(pooled) == "Examples(6 sequences of 4 tokens, width 3 to 2, rows='mean', float64)"


def test_absent_tokens_may_hold_anything_and_are_read_as_zero(X, Y, mask):
    X[~mask], Y[~mask] = np.nan, np.inf
    examples = al.Examples(X, Y, mask)
    assert np.array_equal(examples.inputs.X, np.where(mask[..., None], X, 0))
    assert np.array_equal(examples.targets, np.where(mask[..., None], Y, 0))
    assert np.isnan(X[1, 3]).all()  # the caller's array is left as it was


def test_inputs_are_what_a_layer_reads(X, mask):
    layer = al.random_layer(0, heads=2, width=D)
    outputs = layer(X, mask, "last")
    examples = al.Examples(X, outputs, mask.astype(int), rows="last", truth=layer)
    assert isinstance(examples.inputs, Inputs)
    assert examples.targets.shape == (N, 1, D)
    assert np.array_equal(layer(examples.inputs.X, examples.inputs.present, "last"), outputs)


@pytest.mark.parametrize(
    ("kinds", "coarsest"),
    [
        (("float64", "float64"), "float64"),
        (("float32", "float64"), "float32"),
        (("float64", "float16"), "float16"),
        (("int8", "float64"), "float64"),
        (("bool", "int32"), "float64"),
        (("longdouble", "longdouble"), "float64"),
    ],
)
def test_dtypes_may_differ_and_the_coarsest_is_named(X, Y, kinds, coarsest):
    examples = al.Examples(X.astype(kinds[0]), Y.astype(kinds[1]))
    assert examples.dtype == np.dtype(coarsest)
    assert examples.inputs.X.dtype == examples.targets.dtype == np.float64
    assert np.array_equal(examples.inputs.X, X.astype(kinds[0]).astype(float))


def test_arrays_of_other_libraries_are_read(X, Y):
    examples = al.Examples(jnp.asarray(X, jnp.bfloat16), Y.tolist())
    assert examples.dtype.name == "bfloat16"
    assert np.array_equal(examples.targets, Y)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda X, Y: (X[0], Y), r"X must be .* \(n, k, d\), got shape \(4, 3\). One sequence is X\[None\]"),
        (lambda X, Y: (X[:0], Y[:0]), r"at least one sequence, .* got shape \(0, 4, 3\)"),
        (lambda X, Y: (X[..., :0], Y), "and one entry"),
        (lambda X, Y: (X, Y[:-1]), r"Y must be \(n, k, d_out\) = \(6, 4, d_out\).* got shape \(5, 4, 2\)"),
        (lambda X, Y: (X, Y[:, 0]), 'One output a sequence goes with rows="last"'),
        (lambda X, Y: (X, Y[..., 0]), r"single numbers are Y\[..., None\]"),
        (lambda X, Y: (X, Y[..., :0]), r"got shape \(6, 4, 0\)"),
        (lambda X, Y: (X, Y, None, "last"), r"with rows='last' Y must be \(n, d_out\) = \(6, d_out\)"),
        (lambda X, Y: (X, Y[:, 0, 0], None, "mean"), r"single numbers are Y\[:, None\]"),
        (lambda X, Y: (X, Y, None, "first"), "rows must be one of 'all', 'last', 'mean', got 'first'"),
        (lambda X, Y: (X, Y, np.ones((N, K + 1))), r"mask must be \(n, k\) = \(6, 4\), got shape \(6, 5\)"),
        (lambda X, Y: (X, Y, np.full((N, K), 0.5)), "mask must be true"),
        (lambda X, Y: (X, Y, np.arange(N)[:, None] > [1] * K), "2 sequences have no token at all, .* number 0"),
        (lambda X, Y: ([[[1.0]], [[1.0], [2.0]]], Y), "cannot be read as one array .*from_sequences"),
        (
            lambda X, Y: (X, Y, None, "all", al.random_layer(0, width=5)),
            "truth maps width 5 to 5, X and Y have 3 and 2",
        ),
    ],
)
def test_wrong_shapes_are_refused_with_the_way_out(X, Y, change, said):
    with pytest.raises(ValueError, match=said):
        al.Examples(*change(X, Y))


@pytest.mark.parametrize("kind", [complex, object, str])
def test_what_is_no_real_number_is_refused(X, Y, kind):
    with pytest.raises(TypeError, match="Y must hold real numbers, got dtype"):
        al.Examples(X, Y.astype(kind))


@pytest.mark.parametrize("size", [1, 10**6])
def test_nan_is_refused_with_how_many_and_where(X, Y, monkeypatch, size):
    monkeypatch.setattr(stored, "CHUNK_BYTES", size)
    Y[3, 1, 1], Y[4] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"Y has 9 values that are NaN or infinite, the first is Y\[3, 1, 1\]"):
        al.Examples(X, Y)


def test_sequences_of_different_lengths_are_padded(X, Y, mask):
    lengths = mask.sum(axis=1)
    cut = [x[:k] for x, k in zip(X, lengths, strict=True)]
    examples = al.Examples.from_sequences(cut, [y[:k] for y, k in zip(Y, lengths, strict=True)])
    assert np.array_equal(examples.mask, mask)
    assert np.array_equal(examples.targets, np.where(mask[..., None], Y, 0))
    pooled = al.Examples.from_sequences(cut, Y[:, 0].astype(np.float32), rows="mean")
    assert (pooled.rows, pooled.dtype.name, pooled.answers) == ("mean", "float32", N)
    assert al.Examples.from_sequences(list(X), list(Y)).mask is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda X, Y: (X, Y[:-1]), "X holds 6 sequences and Y outputs of 5"),
        (lambda X, Y: ([], []), "X holds 0 sequences"),
        (lambda X, Y: ([*X[:-1], X[0, :, :2]], Y), r"sequence 5 of X has shape \(4, 2\)"),
        (lambda X, Y: ([X[0, :2], *X[1:]], Y), r"output 0 of Y has shape \(4, 2\); wanted is \(2, width_out\)"),
        (lambda X, Y: (X, Y[:, 0]), r"output 0 of Y has shape \(2,\).* rows=.last. or rows=.mean."),
        (lambda X, Y: (X, [*Y[1:], "a"]), "an output of Y must hold real numbers"),
    ],
)
def test_sequences_that_do_not_fit_their_outputs_are_refused(X, Y, change, said):
    with pytest.raises((ValueError, TypeError), match=said):
        al.Examples.from_sequences(*change(X, Y))


def test_a_part_is_examples(X, Y, mask):
    examples = al.Examples(X, Y, mask)
    for part in (slice(1, 4), slice(None, None, -2), [4, 0, 0], np.arange(N) > 3):
        found = examples[part]
        assert np.array_equal(found.targets, examples.targets[part])
        assert np.array_equal(found.mask, mask[part])
    for nothing in (3, slice(0, 0)):
        with pytest.raises(IndexError, match="takes a slice or an array naming some of 6 examples"):
            examples[nothing]


def test_a_split_is_a_partition_drawn_by_the_key(X, Y):
    examples = al.Examples(X, Y)
    kept, held = examples.split(0.3, np.random.default_rng(1))
    assert (len(kept), len(held)) == (4, 2)
    together = np.concatenate([kept.X, held.X])
    assert np.array_equal(np.sort(together[:, 0, 0]), np.sort(X[:, 0, 0]))
    again, _ = examples.split(0.3, np.random.default_rng(1))
    assert np.array_equal(again.X, kept.X)
    assert [len(part) for part in examples.split(0.99, np.random.default_rng(1))] == [1, 5]
    with pytest.raises(ValueError, match=r"a share between 0 and 1 and two examples or more, got 1.5 of 6"):
        examples.split(1.5, np.random.default_rng(1))


def test_chunks_are_all_examples_in_order(X, Y, mask):
    examples = al.Examples(X, Y, mask)
    parts = list(examples.chunks(4))
    assert [len(part) for part in parts] == [4, 2]
    assert np.array_equal(np.concatenate([part.targets for part in parts]), examples.targets)
    with pytest.raises(ValueError, match="at least one sequence, got 0"):
        next(examples.chunks(0))


def test_repeated_sequences_are_counted(X, Y, mask):
    assert al.Examples(X, Y).duplicates == 0
    X[3], X[5] = X[0], X[0]
    X[4], X[1] = 0.0, -0.0
    assert al.Examples(X, Y).duplicates == 3
    assert al.Examples(X, Y, mask).duplicates == 0  # other tokens of them are there


def test_constant_outputs_are_seen(X, Y, mask):
    assert not al.Examples(X, Y).constant
    flat = np.broadcast_to(Y[0, 0], Y.shape)
    assert al.Examples(X, flat).constant
    assert al.Examples(X, flat * (1 + 5e-16 * Y)).constant
    assert not al.Examples(X, flat * (1 + 1e-10 * Y)).constant
    assert al.Examples(X, (flat * (1 + 1e-7 * Y)).astype(np.float32)).constant
    assert al.Examples(X, np.where(mask[..., None], flat, Y), mask).constant
    assert al.Examples(X, 0 * Y).constant
