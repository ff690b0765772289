import math

import numpy as np
import pytest

import attnlearn as al
from attnlearn.layers import attention_pooling


def directions(d=5):
    return np.random.default_rng(0).standard_normal((2, d))


@pytest.mark.parametrize(
    "normaliser, weights",
    [
        (al.Erf(mean=False), lambda scores: [math.erf(s) for s in scores]),
        (al.Linear(mean=False), list),
        (al.ReLU(mean=False), lambda scores: [max(s, 0.0) for s in scores]),
        (al.Erf(), lambda scores: [math.erf(s) / len(scores) for s in scores]),
        (al.Softmax(), lambda scores: [math.exp(s) / sum(map(math.exp, scores)) for s in scores]),
    ],
)
def test_every_row_is_the_weighted_sum_of_the_definition(normaliser, weights, key):
    k, v = directions()
    X = key.standard_normal((3, 4, 5))
    wanted = [sum(w * (x @ v) for w, x in zip(weights([0.7 * (x @ k) for x in one]), one, strict=True)) for one in X]
    found = attention_pooling(k, v, 0.7, normaliser)(X)
    np.testing.assert_allclose(found, np.repeat(np.array(wanted)[:, None, None], 4, axis=1), rtol=1e-13)


def test_is_saved_with_weights_that_are_not_divided(tmp_path, key):
    layer = attention_pooling(*directions(), 0.7)
    layer.save(tmp_path / "layer.safetensors")
    again = al.AttentionLayer.load(tmp_path / "layer.safetensors")
    assert again == layer and again.slots.normaliser == al.Erf(mean=False)


@pytest.mark.parametrize("k, v", [(np.ones(3), np.ones(4)), (np.ones((2, 2)), np.ones((2, 2))), ([], [])])
def test_refuses_directions_of_different_widths(k, v):
    with pytest.raises(ValueError, match="k and v must be vectors of the same width, got shapes"):
        attention_pooling(k, v)


def test_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity"):
        attention_pooling(np.array([1.0, np.nan]), np.ones(2))
