"""The certificate of a fit: passes on right layers, refuses corrupted ones, and says what failed."""

import numpy as np
import planted
import pytest
from fits import displaced, fitted, noisy

import attnlearn as al
from attnlearn.certify import jacobian as jacobian_module
from attnlearn.certify.coordinates import Coordinates, Unknowns
from attnlearn.certify.from_examples import ExamplesOptions, examples_certificate
from attnlearn.data.examples import Examples

TRUTH = planted.layer(0)


def clean(batch, seed=1):
    X = planted.tokens(seed, batch=batch)
    return Examples(X, TRUTH(X))


def by_name(certificate):
    return {statement.name: statement for statement in certificate.statements}


@pytest.mark.parametrize("noise", [0.0, None])
def test_passes_the_truth_on_clean_labels(noise):
    found = examples_certificate(TRUTH, clean(20), ExamplesOptions(noise=noise, held_out=clean(10, 2)))
    said = by_name(found)
    assert found.passed and found.max_error < 1e-14
    assert all(said[name].holds for name in ("fit", "numbers per unknown", "identifiable", "held-out error"))
    assert said["numbers per unknown"].value == 300 / 67
    assert said["distance to an exact layer"].holds and said["distance to an exact layer"].value < 1e-6
    assert said["expected error on new sequences"].value == pytest.approx(7 * np.log(40) / (3 * 9))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, None])
@pytest.mark.parametrize("error", [1e-4, 1.0])
def test_refuses_a_corrupted_layer(noise, error, key):
    coordinates = Coordinates(TRUTH)
    vector = key.standard_normal(coordinates.size)
    corrupted = displaced(TRUTH, coordinates, error * vector / np.linalg.norm(vector))
    found = examples_certificate(corrupted, clean(40), ExamplesOptions(noise=noise))
    assert not found.passed
    assert found.statements[0].name == ("fit" if noise == 0 else "residual without structure")
    assert not found.statements[0].holds


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.1, None])
def test_passes_a_fit_to_noise_and_refuses_one_head_too_few(noise):
    X = planted.tokens(1, batch=40)
    examples, held_out = noisy(TRUTH, X, 0.1), noisy(TRUTH, planted.tokens(2, batch=40), 0.1, 5)
    options = ExamplesOptions(noise=noise, held_out=held_out)
    found = examples_certificate(fitted(TRUTH, examples), examples, options)
    said = by_name(found)
    assert found.passed
    assert 0.5 < said["held-out error"].value < said["held-out error"].limit < 3
    assert "distance to an exact layer" not in said
    half = al.AttentionLayer(TRUTH.qk[:1], TRUTH.ov[:1], TRUTH.query_bias[:1], TRUTH.offset)
    half = fitted(half, examples, Unknowns(("ov", "offset")), steps=1)
    refused = by_name(examples_certificate(half, examples, options))
    assert not refused["residual against the noise" if noise else "residual without structure"].holds


@pytest.mark.slow
def test_too_few_examples_are_refused_and_few_are_warned_of():
    said = by_name(examples_certificate(TRUTH, clean(4), ExamplesOptions(noise=0.0)))
    assert not said["numbers per unknown"].holds and not said["identifiable"].holds
    found = examples_certificate(TRUTH, clean(6), ExamplesOptions(noise=0.0))
    said = by_name(found)
    assert found.passed and said["numbers per unknown"].holds and not said["margin of data"].holds
    few = examples_certificate(TRUTH, noisy(TRUTH, planted.tokens(1, batch=4), 0.1), ExamplesOptions(noise=0.1))
    assert not few.passed and not by_name(few)["residual against the noise"].holds


def test_hidden_directions_are_named_and_do_not_count_as_unknowns():
    X = planted.tokens(1, batch=20)
    X[..., 0] = 1.0
    found = examples_certificate(TRUTH, Examples(X, TRUTH(X)), ExamplesOptions(noise=0.0))
    said = by_name(found)["identifiable"]
    assert found.passed and said.value == said.limit == 2 * (2 * 4 + 3)
    assert "row shift" in said.claim
    assert by_name(found)["numbers per unknown"].value == 300 / (67 - 22)


@pytest.mark.slow
def test_a_known_rank_needs_fewer_examples():
    layer = planted.layer(0, (2, 4, 3), head_dim=1)
    X = planted.tokens(1, batch=4)
    examples, known = Examples(X, layer(X)), Unknowns(head_dim=1)
    found = examples_certificate(layer, examples, ExamplesOptions(noise=0.0, unknowns=known))
    assert found.passed and by_name(found)["numbers per unknown"].value == 60 / (2 * 8 + 2 * 6 + 3)
    assert "curved set" in by_name(found)["distance to an exact layer"].claim
    assert not examples_certificate(layer, examples, ExamplesOptions(noise=0.0)).passed


def test_large_problems_fall_back_on_the_closed_form(monkeypatch):
    monkeypatch.setattr(jacobian_module, "MAX_BYTES", 0)
    found = examples_certificate(TRUTH, clean(20), ExamplesOptions(noise=0.0))
    assert found.passed and "too large to measure" in by_name(found)["identifiable"].claim
    assert not by_name(found)["distance to an exact layer"].holds
    unknown = examples_certificate(TRUTH, noisy(TRUTH, planted.tokens(1, batch=20), 0.1))
    assert not unknown.passed and "State the noise" in by_name(unknown)["residual without structure"].claim


def test_labels_in_float32_are_judged_in_their_precision():
    X = planted.tokens(1, batch=20).astype(np.float32)
    examples = Examples(X, TRUTH(X).astype(np.float32))
    assert by_name(examples_certificate(TRUTH, examples, ExamplesOptions(noise=0.0)))["fit"].limit == pytest.approx(
        1.2e-6, rel=0.1
    )


def test_refuses_wrong_options_and_shapes():
    with pytest.raises(ValueError, match="noise must be at least 0"):
        ExamplesOptions(noise=-1.0)
    with pytest.raises(ValueError, match="rtol must be positive"):
        ExamplesOptions(rtol=0.0)
    with pytest.raises(ValueError, match="delta must lie between"):
        ExamplesOptions(delta=1.0)
    with pytest.raises(ValueError, match="the layer maps width 3 to 3, the examples 4 to 3"):
        examples_certificate(planted.layer(0, (2, 3, 3)), clean(20))
