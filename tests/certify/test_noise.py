"""Residual against noise: the laws of both statistics, and what makes them refuse."""

import numpy as np
import planted
import pytest
import scipy.stats
from fits import fitted, noisy

from attnlearn.certify import jacobian as jacobian_module
from attnlearn.certify.coordinates import Unknowns
from attnlearn.certify.noise import lack_of_fit, noise_agreement

CIRCUITS = Unknowns(("qk", "ov"))


@pytest.mark.slow
def test_p_values_of_right_fits_are_uniform():
    """Kolmogorov and Smirnov's test of 60 p-values each.

    False alarms: 1e-6. Mutant: N_o degrees of freedom and not N_o - p = 96 of 160: all p-values of the residual are
    above 0.99. Mutant: J not projected out of the new regressors: those of the F test pile up near 1.
    """
    key, sizes, structures = np.random.default_rng(1), [], []
    for _ in range(60):
        truth = planted.layer(int(key.integers(2**31)), (2, 4, 4))
        X = key.standard_normal((5, 8, 4))
        examples = noisy(truth, X, 1e-3, int(key.integers(2**31)))
        layer = fitted(truth, examples, CIRCUITS, steps=3)
        found = noise_agreement(layer, examples, 1e-3, CIRCUITS)
        assert found.degrees_of_freedom == 96
        assert found.p_value + found.p_value_below == pytest.approx(1.0)
        sizes.append(found.p_value)
        structures.append(lack_of_fit(layer, examples, CIRCUITS).p_value)
    assert scipy.stats.kstest(sizes, "uniform").pvalue > 1e-6
    assert scipy.stats.kstest(structures, "uniform").pvalue > 1e-6


@pytest.mark.slow
def test_a_layer_that_does_not_explain_the_labels_is_noticed():
    truth, X = planted.layer(0), planted.tokens(1, batch=40)
    examples = noisy(truth, X, 0.1)
    wrong = planted.layer(7)
    assert noise_agreement(truth, examples, 0.1).p_value > 1e-3
    assert noise_agreement(wrong, examples, 0.1).p_value < 1e-9
    assert lack_of_fit(truth, examples).p_value > 1e-3
    assert lack_of_fit(wrong, examples).p_value < 1e-9
    assert noise_agreement(truth, examples, 0.2).p_value_below < 1e-9


def test_refuses_what_has_no_law(monkeypatch):
    layer = planted.layer(0)
    few = noisy(layer, planted.tokens(1, batch=2), 0.1)
    with pytest.raises(ValueError, match="30 observed numbers for 30 fitted ones leave nothing"):
        noise_agreement(layer, few, 0.1)
    with pytest.raises(ValueError, match="leave nothing beside 30 fitted"):
        lack_of_fit(layer, few)
    with pytest.raises(ValueError, match="noise must be a positive"):
        noise_agreement(layer, few, 0.0)
    monkeypatch.setattr(jacobian_module, "MAX_BYTES", 0)
    with pytest.raises(ValueError, match="too large to build"):
        lack_of_fit(layer, few)
