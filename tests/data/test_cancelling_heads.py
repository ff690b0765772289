"""Heads that cancel: what is exactly gone, what is left, and what stays visible."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from cancelling import corners, hidden, outputs
from oracles import attention, softmax

from attnlearn.data.cancelling_heads import CancellingHeads, ParityHeads
from attnlearn.data.distributions import cube, gaussian

HEADS = [2, 3, 4, 5]


def partitions(items):
    """All ways to split `items` into blocks."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for size in range(len(rest) + 1):
        for others in itertools.combinations(rest, size):
            left = [item for item in rest if item not in others]
            for blocks in partitions(left):
                yield [[first, *others], *blocks]


def joint_cumulant(variables):
    """Of variables given by their equally likely values, from its definition by moments of blocks."""
    total = 0.0
    for blocks in partitions(list(range(len(variables)))):
        sign = (-1) ** (len(blocks) - 1) * math.factorial(len(blocks) - 1)
        total += sign * math.prod(np.prod([variables[i] for i in block], axis=0).mean() for block in blocks)
    return total


@pytest.mark.parametrize("m", [2, 3, 4, 5, 9])
def test_weights_annihilate_all_powers_below_the_number_of_heads_less_one(m):
    planted = CancellingHeads(m, 3, 4.0, 0, lowest=0.5)
    weights = [Fraction(float(c)) for c in planted.weights]  # exact: whole numbers over a power of two
    assert sum(map(abs, weights)) == 1
    for power in range(m - 1):
        assert sum(c * i**power for i, c in enumerate(weights)) == 0
    assert sum(c * i ** (m - 1) for i, c in enumerate(weights)) == Fraction(math.factorial(m - 1), 2 ** (m - 1))
    assert np.allclose(planted.scales, [0.5 + i * planted.step for i in range(m)], rtol=1e-14)
    assert math.isclose(planted.scales[-1], 4.0)


@pytest.mark.parametrize("m", HEADS)
def test_the_lowest_order_that_is_left_is_a_joint_cumulant(m):
    """All sequences at d = 2, k = 2 and some at k = 3: hidden = (h/2)^n cumulant(s, ..., s, v) + O(R^(n+1))."""
    n, norm = m - 1, 1e-2
    planted = CancellingHeads(m, 2, norm, 3)
    theta, W = planted.ingredients()
    for X in (corners(2, 2)[::2], corners(3, 2)[::8]):
        found = hidden(planted, X)
        for x, rows in zip(X, found, strict=True):
            for a, column in itertools.product(range(x.shape[0]), range(2)):
                scores, values = x @ theta.T @ x[a], x @ W[:, column]
                expected = (planted.step / 2) ** n * joint_cumulant([scores] * n + [values])
                # the next order has n! or so, and the norm once more; and outputs of size 1 are rounded
                next_order = math.factorial(n) * norm * (planted.step / 2) ** n
                assert abs(rows[a, column] - expected) < next_order + 1e-15


@pytest.mark.parametrize("tokens", [cube, gaussian])
@pytest.mark.parametrize("m", [3, 4])
def test_hidden_part_shrinks_with_the_power_of_the_norm(m, tokens):
    """With 1/10 of the norm the hidden part is 10^(m-1) times smaller: all lower orders are gone."""
    X = tokens(np.random.default_rng(0), 16, 3, 3)
    sizes = [np.linalg.norm(hidden(CancellingHeads(m, 3, norm, 1), X)) for norm in (2e-3, 2e-4)]
    assert math.isclose(math.log10(sizes[0] / sizes[1]), m - 1, abs_tol=0.02)


@pytest.mark.parametrize("lowest", [0.0, 1.0])
def test_layer_is_the_common_head_and_the_weighted_heads_by_loops(lowest):
    planted = CancellingHeads(3, 2, 3.0, 0, lowest=lowest, balance=0.7, generic=0.2, width_out=3)
    layer, (theta, W) = planted.layer(), planted.ingredients()
    for x in corners(2, 2):
        expected = attention(planted.common(), x)
        for a, (i, c) in itertools.product(range(2), enumerate(planted.weights)):
            generic = layer.qk[i] - planted.scales[i] * theta
            weights = softmax(x @ (planted.scales[i] * theta + generic).T @ x[a])
            expected[a] += c * weights @ x @ W
            assert math.isclose(np.linalg.norm(generic), 0.2)
        assert np.allclose(layer(x), expected, rtol=0, atol=1e-14)


def test_sum_of_the_ov_circuits_is_the_common_part():
    for planted in (CancellingHeads(4, 3, 2.0, 0, balance=2.0, width_out=4), ParityHeads(3, 5, 2.0, 0, balance=2.0)):
        total = planted.layer().ov.sum(axis=0)
        assert np.allclose(total, planted.common().ov[0], rtol=0, atol=1e-15)
        assert np.linalg.matrix_rank(total) == planted.width


def test_with_an_averaging_first_head_the_common_part_does_not_know_the_attention_matrix():
    X = cube(np.random.default_rng(0), 20, 4, 3)
    planted = CancellingHeads(3, 3, 4.0, 0)
    average = X.mean(axis=1, keepdims=True) @ planted.common().ov[0]
    assert np.allclose(outputs(planted.common(), X), np.broadcast_to(average, X.shape), rtol=0, atol=1e-14)


def test_generic_parts_make_the_attention_matrices_linearly_independent():
    def rank(planted):
        return np.linalg.matrix_rank(planted.layer().qk.reshape(planted.heads, -1))

    assert rank(CancellingHeads(4, 3, 2.0, 0)) == 1
    assert rank(CancellingHeads(4, 3, 2.0, 0, generic=0.1)) == 4


@pytest.mark.parametrize("m", HEADS)
def test_two_tokens_show_exactly_a_parity(m):
    planted = ParityHeads(m, max(2 * m - 2, 3), 4.0, m)
    layer = planted.layer()
    X = corners(2, planted.width) if planted.width <= 5 else cube(np.random.default_rng(0), 200, 2, planted.width)
    for x, rows in zip(X, outputs(layer, X), strict=True):
        for a in range(2):
            expected = (x[0] + x[1]) / 2 @ planted.common().ov[0]
            if x[0, planted.switch] != x[1, planted.switch]:
                expected = expected + planted.size * math.prod(x[a, j] for j in planted.bits) * planted.direction
            assert np.abs(rows[a] - expected).max() < 1e-13  # rounding of outputs of size 1
    assert len(planted.bits) == planted.order == 2 * m - 3 and planted.switch not in planted.bits
    assert math.isclose(np.abs(layer.ov[1:]).sum() / np.abs(planted.direction).sum(), 1.0)
    assert math.isclose(np.linalg.norm(layer.qk, axis=(1, 2)).max(), 4.0)


def test_statistics_of_lower_degree_see_nothing_of_a_parity():
    """Correlations with all 2^8 products of the entries of both tokens, by enumeration at d = 4."""
    planted = ParityHeads(3, 4, 4.0, 0)
    X = corners(2, 4)
    rows = hidden(planted, X)[:, 0] @ planted.direction
    seen = set()
    for chosen in itertools.product([False, True], repeat=8):
        correlation = (X.reshape(-1, 8)[:, chosen].prod(axis=1) * rows).mean()
        if abs(correlation) > 1e-14:
            assert math.isclose(abs(correlation), planted.size / 2, rel_tol=1e-10)
            seen.add(tuple(np.flatnonzero(chosen)))
    assert seen == {planted.bits, tuple(sorted((*planted.bits, planted.switch, planted.switch + 4)))}


def test_parities_of_other_bits_are_uncorrelated():
    X = corners(2, 4)
    found = {}
    for seed in range(40):
        planted = ParityHeads(3, 4, 4.0, seed)
        if planted.switch == 0:
            found[planted.bits] = hidden(planted, X) @ planted.direction / planted.size
        other = ParityHeads(2, 4, 4.0, seed)
        if other.switch == 0:
            found[other.bits] = hidden(other, X) @ other.direction / other.size
    table = np.array(list(found.values())).reshape(len(found), -1)
    assert len(found) == 4  # three single entries and all three
    assert np.allclose(table @ table.T / len(X), np.eye(4), rtol=0, atol=1e-12)


def test_exact_labels_give_the_bits_away_by_equations_modulo_two():
    """The hidden parity is no bound for an algorithm that sees the examples: 60 of them determine it."""
    planted = ParityHeads(4, 12, 4.0, 0)
    X = cube(np.random.default_rng(1), 60, 2, 12)
    rows = hidden(planted, X)[:, 0] @ planted.direction
    differ = X[:, 0, planted.switch] != X[:, 1, planted.switch]
    system = np.column_stack([X[differ, 0] < 0, rows[differ] < 0]).astype(int)
    pivots = []
    for column in range(12):
        below = [row for row in range(len(pivots), len(system)) if system[row, column]]
        if below:
            system[[len(pivots), below[0]]] = system[[below[0], len(pivots)]]
            for row in range(len(system)):
                if row != len(pivots) and system[row, column]:
                    system[row] ^= system[len(pivots)]
            pivots.append(column)
    assert len(pivots) == 12
    assert tuple(np.flatnonzero(system[:12, 12])) == planted.bits


def test_the_same_record_is_the_same_layer():
    for make in (lambda seed: CancellingHeads(3, 4, 2.0, seed), lambda seed: ParityHeads(3, 4, 2.0, seed)):
        assert np.array_equal(make(5).layer().ov, make(5).layer().ov)
        assert not np.array_equal(make(5).layer().ov, make(6).layer().ov)


@pytest.mark.parametrize("kind, width", [(CancellingHeads, 6), (ParityHeads, 6)])
def test_wrong_sizes_are_refused(kind, width):
    with pytest.raises(ValueError, match="heads cancel from two on, got heads=1"):
        kind(1, width, 2.0, 0)
    with pytest.raises(ValueError, match="width and width_out must be at least 1, got width=0"):
        kind(2, 0, 2.0, 0)
    with pytest.raises(ValueError, match="width and width_out must be at least 1, got width=6, width_out=0"):
        kind(2, width, 2.0, 0, width_out=0)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        kind(2, width, 2.0, -1)
    with pytest.raises(ValueError, match="balance must be at least 0 and finite, got -1"):
        kind(2, width, 2.0, 0, balance=-1.0)


def test_wrong_strengths_are_refused():
    for lowest, norm in ((2.0, 2.0), (-1.0, 2.0), (0.0, float("inf"))):
        with pytest.raises(ValueError, match="wanted 0 <= lowest < norm"):
            CancellingHeads(2, 3, norm, 0, lowest=lowest)
    with pytest.raises(ValueError, match="generic must be at least 0 and finite, got nan"):
        CancellingHeads(2, 3, 2.0, 0, generic=float("nan"))
    with pytest.raises(ValueError, match="norm must be positive and finite, got 0"):
        ParityHeads(2, 3, 0.0, 0)
    with pytest.raises(ValueError, match="4 heads hide a parity of 5 entries: the width must be at least 6, got 5"):
        ParityHeads(4, 5, 2.0, 0)
    with pytest.raises(ValueError, match="saturates the 6 heads: the weights of a parity cannot be solved for"):
        ParityHeads(6, 12, 300.0, 0)
