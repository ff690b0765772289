"""Planted problems are what their names say, baselines minimise what they should, and fits are judged fairly."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attnlearn as al
from bench.__main__ import read, write
from bench.examples import against_adam
from bench.examples.baselines import LBFGS, Adam, Circuits, Data, eliminated, eliminated_loss, features, loss, start
from bench.examples.contest import ratio
from bench.examples.fit import TARGET, Fit, Run, best, errors, fits, judged
from bench.examples.picture import picture
from bench.examples.planted import LAYER, NOISE, ROOT, SOLVER, TOKENS, Planted

SMALL = Planted(4, 2, 8)


def fit(solver="ours", seed=0, error=1e-9, seconds=1.0, setting="", problem=SMALL.name, **figures):
    reached = seconds / 2 if error <= TARGET else np.inf
    return Fit(problem, solver, setting, seed, "LEARNED", "", error, error, error, seconds, reached, 0.1, figures)


@pytest.mark.parametrize(
    "problem, sequences",
    [
        (Planted(8, 4, 16), 20),
        (Planted(8, 2, 8, ratio=2.5), 10),
        (Planted(16, 4, 16, ratio=3.0), 24),
        (Planted(32, 4, 16, ratio=4.0), 64),
        (Planted(4, 2, 8, ratio=3.1), 7),  # 198.4 numbers wanted, 32 in a sequence
        (Planted(16, 2, 8, ratio=4.0, rank=4), 14),  # 4 circuits of 4 (32 - 4) free numbers, 128 in a sequence
    ],
)
def test_a_ratio_gives_so_many_sequences(problem, sequences):
    assert problem.sequences == sequences
    assert len(problem.examples(0)) == sequences


def test_logits_and_outputs_have_the_spread_of_the_recipe():
    problem = Planted(16, 8, 16, logit_std=2.0)
    examples, truth = problem.examples(1), problem.layer(1)
    logits = np.einsum("nkd,mde,nje->nmkj", examples.X, truth.qk, examples.X)
    assert np.std(logits) == pytest.approx(2.0, rel=0.1)  # 2048 entries of Θ: 6 standard deviations of the estimate
    assert np.std(truth.ov) == pytest.approx(1 / 4, rel=0.1)
    np.testing.assert_array_equal(np.abs(examples.X), 1.0)


def test_tokens_are_correlated_as_much_as_the_condition_says():
    X = Planted(8, 2, 8, condition=1e3, law="gaussian").inputs(0, 4000).reshape(-1, 8)
    eigenvalues = np.linalg.eigvalsh(np.cov(X.T))
    assert eigenvalues[-1] / eigenvalues[0] == pytest.approx(1e3, rel=0.15)  # 32000 tokens: each within 5 %
    assert eigenvalues.mean() == pytest.approx(1.0, rel=0.05)


def test_heads_are_as_alike_as_their_cosine_says():
    qk = Planted(32, 4, 8, cosine=0.9).layer(0).qk.reshape(4, -1)
    cosines = (qk @ qk.T) / np.outer(*[np.linalg.norm(qk, axis=1)] * 2)
    assert cosines[~np.eye(4, dtype=bool)] == pytest.approx(0.9, abs=0.03)  # 1024 entries


def test_norms_and_ranks_are_those_asked_for():
    spread = np.linalg.norm(Planted(32, 4, 8, norm_span=100.0).layer(0).ov, axis=(1, 2))
    assert spread.max() / spread.min() == pytest.approx(100.0, rel=0.15)  # norms of 1024 entries: each within 7 %
    thin = Planted(8, 2, 8, rank=3).layer(0)
    assert {np.linalg.matrix_rank(one) for one in (*thin.qk, *thin.ov)} == {3}


def test_noise_is_relative_to_the_outputs():
    examples = Planted(8, 4, 16, noise=0.1, ratio=20.0).examples(0)
    exact = examples.truth(examples.X)
    added = np.std(examples.Y - exact) / np.sqrt(np.mean(exact**2))
    assert added == pytest.approx(0.1, rel=0.05)  # 10240 numbers: 7 standard deviations of the estimate


def test_no_solver_starts_from_the_numbers_that_drew_the_layer():
    """NumPy reads [seed, 0] as the seed alone."""
    words = [[], [LAYER], [TOKENS, 0], [TOKENS, 1], [ROOT], [NOISE], [SOLVER]]
    assert len({np.random.default_rng([5, *word]).standard_normal() for word in words}) == len(words)


@pytest.mark.parametrize("whiten", [False, True])
def test_the_circuits_of_a_baseline_are_those_of_the_layer_that_it_returns(whiten):
    problem = Planted(4, 2, 8, condition=100.0)
    with jax.enable_x64(True):
        data = Data.of(problem.examples(0), whiten)
        circuits = start(data, 2, np.random.default_rng(0))
        fitted = np.asarray(features(circuits.T, data.X) @ circuits.W)
    outputs = data.layer(circuits)(problem.examples(0).X)
    np.testing.assert_allclose(fitted, outputs.reshape(fitted.shape), rtol=0, atol=1e-12 * np.abs(fitted).max() * 100)


def test_whitened_tokens_have_the_identity_as_second_moment():
    with jax.enable_x64(True):
        X = np.asarray(Data.of(Planted(4, 2, 8, condition=100.0).examples(0), True).X).reshape(-1, 4)
    np.testing.assert_allclose(X.T @ X / len(X), np.eye(4), atol=1e-12)  # rounding times the condition


@pytest.mark.slow
def test_the_gradient_of_the_eliminated_loss_needs_no_derivative_of_the_elimination():
    def plain(T, X, Y):
        W = eliminated(T, X, Y)
        return loss(Circuits(T, W), X, Y) + 1e-10 * jnp.sum(jnp.square(W))

    with jax.enable_x64(True):
        data = Data.of(SMALL.examples(0), False)
        T = start(data, 2, np.random.default_rng(0)).T
        ours, full = (jax.grad(function)(T, data.X, data.Y) for function in (eliminated_loss, plain))
    np.testing.assert_allclose(ours, full, rtol=0, atol=1e-10 * np.abs(full).max())  # rounding times cond(Φ)²


@pytest.mark.slow
@pytest.mark.parametrize("solver", [Adam(2, 2000, rates=(0.03,)), LBFGS(2), LBFGS(2, project=True, whiten=True)])
def test_a_baseline_reaches_the_layer_of_an_easy_problem(solver):
    solved = [one for seed in range(3) for one in fits(Planted(8, 2, 16), solver, seed) if one.solved]
    assert solved  # of one start each: 0.8 to 1 for all three
    assert all(0 < one.to_target <= one.seconds for one in solved)


def test_the_time_to_the_target_is_that_of_the_first_look_within_it():
    truth, other = SMALL.layer(0), SMALL.layer(1)
    run = Run([(1.0, None), (2.0, other), (3.0, truth), (4.0, truth)])
    found = judged(SMALL, "any", 0, run)
    assert (found.to_target, found.seconds, found.error) == (3.0, 4.0, 0.0)
    missed = judged(SMALL, "any", 0, Run([(1.0, truth), (2.0, None)]))
    assert missed.error == np.inf and not missed.solved


def test_heads_that_no_distance_compares_have_no_error():
    problem = Planted(4, 2, 8, slots=al.Slots(al.Sigmoid()))
    assert np.isnan(errors(problem.layer(0), problem.layer(0))).all()
    found = judged(problem, "any", 0, Run([(1.0, problem.layer(0))]))
    assert found.held_out == 0 and found.solved
    assert Fit.table([found]).row_count == 1


def test_of_several_settings_the_fastest_that_solved_counts():
    slow, fast = fit(seconds=4.0, setting="a"), fit(seconds=2.0, setting="b")
    near, far = fit(seed=1, error=1e-3, setting="a"), fit(seed=1, error=1.0, seconds=0.1, setting="b")
    assert best([slow, far, fast, near]) == [fast, near]


def test_a_ratio_of_times_is_over_the_seeds_that_both_solved():
    mine = [fit(seed=seed) for seed in range(3)]
    theirs = [fit("Adam", 0, seconds=7.0), fit("Adam", 1, error=1.0), fit("Adam", 2, seconds=9.0)]
    assert ratio(list(zip(mine, theirs, strict=True))) == 8.0
    assert np.isnan(ratio([(mine[1], theirs[1])]))


def test_the_record_of_fits_is_read_back_with_its_figures(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.__main__.RESULTS", tmp_path)
    found = [fit(), fit("Adam", error=np.inf, setting="4,000 at 0.03", odd=np.inf)]
    write("against-adam", found, against_adam.claims(found))
    assert json.loads((tmp_path / "against-adam.json").read_text())["trials"][1]["figures"] == {"odd": "inf"}
    assert read("against-adam")[0] == found


def test_the_picture_is_drawn_from_the_fits_alone():
    found = [fit(seed=seed, problem=name) for seed in range(3) for name in (SMALL.name, Planted(8, 2, 8).name)]
    found += [fit("Adam", seed, error=1.0, problem=SMALL.name) for seed in range(3)]
    drawn = picture(found)
    parts = drawn.axes[0]
    assert [label.get_text().split("\n")[0] for label in parts.get_yticklabels()] == [
        "d, m, k, n = 4, 2, 8, 10",
        "d, m, k, n = 8, 2, 8, 20",
    ]
    assert [list(line.get_xdata()) for line in parts.lines[:2]] == [[1.0, 1.0], [0.0]]
    assert Fit.table(found).row_count == 3
