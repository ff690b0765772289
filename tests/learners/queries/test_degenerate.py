"""Layers with heads that hide from each other: resolved, or refused by name, never wrong."""

import re

import numpy as np
import planted
import pytest
from black_boxes import WIDTH, edited

import attnlearn as al
from attnlearn._status import Status

RTOL = 1e-6  # of the certificate
REFUSALS = {
    Status.HEADS_UNRESOLVED,
    Status.HEADS_NEARLY_EQUAL,
    Status.READOUT_ILL_CONDITIONED,
    Status.ISOLATION_FAILED,
    Status.OV_SUM_MISMATCH,
    Status.NOT_CERTIFIED,
    Status.OV_DEGENERATE,
}


def planted_layer(seed, edit, mask=None):
    return edited(planted.random_black_box_layer(100 + seed, WIDTH, 3, 4, mask=mask), edit)


def equal(qk, ov, query_bias):
    qk[1], query_bias[1] = qk[0], query_bias[0]


def zero(qk, ov, query_bias):
    ov[1] = 0


def uniform(qk, ov, query_bias):
    qk[1] = query_bias[1] = 0


def ignoring_the_query(qk, ov, query_bias):
    qk[1] = 0


def two_ignoring_the_query(qk, ov, query_bias):
    qk[1:] = 0


def mirrored(qk, ov, query_bias):
    qk[1], query_bias[1] = -qk[0], -query_bias[0]


def mirrored_beside_uniform(qk, ov, query_bias):
    mirrored(qk, ov, query_bias)
    qk[2] = query_bias[2] = 0


def uniform_beside_one_ignoring_the_query(qk, ov, query_bias):
    qk[1:] = 0
    query_bias[2] = 0


def all_uniform(qk, ov, query_bias):
    qk[:] = query_bias[:] = 0


def close(qk, ov, query_bias):
    qk[1], query_bias[1] = qk[0] + 1e-3 * qk[2], query_bias[0]


RESOLVED = [
    equal,
    zero,
    uniform,
    ignoring_the_query,
    two_ignoring_the_query,
    mirrored,
    mirrored_beside_uniform,
    uniform_beside_one_ignoring_the_query,
    all_uniform,
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "edit, mask",
    [*((edit, None) for edit in RESOLVED), (ignoring_the_query, al.Causal()), (mirrored_beside_uniform, al.Causal())],
    ids=lambda value: getattr(value, "__name__", "causal" if value else ""),
)
def test_degenerate_layers_are_recovered_in_canonical_form(edit, mask):
    layer = planted_layer(0, edit, mask)
    result = al.recover(al.oracles.from_layer(layer))
    assert result.status is Status.RECOVERED, result.evidence
    # The distance merges equal heads and drops zero ones first, so the numbers of heads must agree after that.
    # 1e-9: circuits to 1e-11 from steps inside a cell or from the read-out, times a conditioning of a hundred.
    errors = al.distance(result.layer, layer)
    assert errors.worst < 1e-9, errors.reason
    assert result.layer.heads == al.canonical(layer).heads


@pytest.mark.slow
def test_heads_a_thousandth_apart_are_told_apart():
    layer = planted_layer(0, close)
    result = al.recover(al.oracles.from_layer(layer))
    assert result.status is Status.RECOVERED, result.evidence
    assert result.layer.heads == 3
    # Their atoms merge; along the circle the cell between their flips is a thousandth as wide as others.
    assert al.distance(result.layer, layer).worst < 1e-7


def same_ov(qk, ov, query_bias):
    ov[1] = ov[0]


def opposite_ov(qk, ov, query_bias):
    ov[1] = -ov[0]


def all_cancel(qk, ov, query_bias):
    ov[2] = -ov[0] - ov[1]


def reflected_with_opposite_ov(qk, ov, query_bias):
    mirrored(qk, ov, query_bias)
    ov[1] = -ov[0]


def reflected_with_the_same_ov(qk, ov, query_bias):
    mirrored(qk, ov, query_bias)
    ov[1] = ov[0]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "edit, status, evidence",
    [
        (same_ov, Status.READOUT_ILL_CONDITIONED, "OV circuits of 3 heads are dependent"),
        (opposite_ov, Status.READOUT_ILL_CONDITIONED, "OV circuits of 3 heads are dependent"),
        (all_cancel, Status.READOUT_ILL_CONDITIONED, "OV circuits of 3 heads are dependent"),
        (reflected_with_opposite_ov, Status.READOUT_ILL_CONDITIONED, "are dependent .* two heads share an OV circuit"),
        (reflected_with_the_same_ov, Status.HEADS_UNRESOLVED, "two heads of opposite scores share an OV circuit"),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "name", "")),
)
def test_heads_that_share_an_ov_circuit_are_refused_by_name(edit, status, evidence, seed):
    result = al.recover(al.oracles.from_layer(planted_layer(seed, edit)), seed=seed)
    assert result.status is status
    assert re.search(evidence, result.evidence)


def one_change(key, heads):
    """A random degenerate change of two heads of a layer."""
    i, j = (int(head) for head in key.choice(heads, 2, replace=False))
    gap = 10.0 ** key.uniform(-9, -1)
    sign = key.choice([-1, 1])

    def change(qk, ov, query_bias):
        match key.integers(7):
            case 0:
                qk[i], query_bias[i] = sign * qk[j], sign * query_bias[j]
            case 1:
                qk[i] = query_bias[i] = 0
            case 2:
                qk[i] = 0
            case 3:
                ov[i] = 0
            case 4:
                ov[i] = sign * ov[j]
            case 5:
                qk[i], query_bias[i] = qk[j] + gap * qk[i], query_bias[j]
            case 6:
                ov[i] = ov[j] + gap * ov[i]

    return change


def random_degenerate(seed):
    key = np.random.default_rng(seed)
    layer = planted.random_black_box_layer(key, 12, 3, 3)
    for _ in range(key.integers(1, 4)):
        layer = edited(layer, one_change(key, 3))
    return layer


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_recovered_means_a_small_error_of_the_function(seed):
    layer = random_degenerate(seed)
    oracle = al.oracles.from_layer(layer)
    result = al.recover(oracle, seed=seed)
    if result.status is not Status.RECOVERED:
        assert result.status in REFUSALS
        return
    # Sequences of lengths that the certificate asked too, so that nothing compiles anew; other tokens.
    X = np.random.default_rng(1000 + seed).standard_normal((20, 12, layer.width))
    true = oracle._fn(X)
    # Twice: this draw is another one than the certificate's.
    assert np.abs(result.layer(X) - true).max() < 2 * RTOL * np.abs(true).max()
