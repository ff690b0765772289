"""The baselines' loss is the task's, laps are judged by where they are, and ratios are taken within a round."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import scipy.stats

from attnlearn.studies.single_location import FIVE
from attnlearn.theory.single_location import risk, sphere_starts
from bench.__main__ import read, write
from bench.single_location import race
from bench.single_location.baselines import GAMMA, TASK, Vectors, batch_loss
from bench.single_location.lap import Lap
from bench.single_location.race import FOLDED, JOBS, LOOP, OURS, SCAN, claims, ratio
from bench.trial import by_problem

DESCENT, _, SGD = JOBS
ALLOWED = 1e-9


def lap(solver=OURS, seed=1, runs=30, seconds=1.0, apart=0.0, problem=DESCENT.name):
    kept = seconds if apart <= ALLOWED else np.nan
    return Lap(problem, solver, seed, "float64", runs, 100, apart, ALLOWED, kept, 0.1)


def test_the_lengths_are_those_of_the_experiments():
    assert sum(one.steps for one in FIVE[:4]) * TASK.runs == 8_400_000
    assert FIVE[4].steps * TASK.runs == 6_000_000
    assert [job.n_logs * job.experiment.log_every for job in JOBS[:2]] == [FIVE[2].steps, FIVE[3].steps]
    assert [job.solvers for job in JOBS] == [(LOOP, FOLDED, SCAN, OURS), (LOOP, SCAN, OURS), (LOOP, SCAN, OURS)]


def test_the_loss_of_a_batch_has_the_closed_form_as_its_mean():
    """40 means of 500 sequences, Student's t at a false-alarm rate of 1e-6; the seed is fixed. Mutants: an informative
    token of spread 1, one of them too few."""
    experiment, states = replace(FIVE[4], d=12, batch=500), sphere_starts(0, 1, 12)[0]
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 40)
        one = jax.vmap(lambda key: batch_loss(Vectors.at(states, 12), 1.5, key, experiment))
        losses = np.asarray(jax.jit(one)(keys))
    off = losses.mean() - risk(states, 1.5, GAMMA, 12, TASK.tokens) - TASK.epsilon**2
    assert abs(off) <= scipy.stats.t.isf(5e-7, 39) * losses.std(ddof=1) / np.sqrt(40)


def test_runs_of_descent_that_end_elsewhere_have_no_time(monkeypatch):
    there = np.tile(sphere_starts(0, 3, 400), (2, 1, 1))
    ends = {LOOP: there[:, :1], FOLDED: there[:, :1], SCAN: there, OURS: there + 1e-6}
    monkeypatch.setattr(race, "_run", lambda solver, *rest: solver)
    monkeypatch.setattr(race, "_states", ends.get)
    found = {one.solver: one for one in race.rounds(DESCENT.tiny(), runs=3, n=1)}
    assert [one.status for one in found.values()] == ["AGREES", "AGREES", "AGREES", "ELSEWHERE"]
    assert np.isnan(found[OURS].seconds) and found[LOOP].seconds > 0
    assert next(claim.holds for claim in claims(list(found.values()))) is False


@pytest.mark.slow
def test_sgd_of_ours_has_the_law_of_the_baseline():
    """Kolmogorov and Smirnov's test with Bonferroni's factor, false-alarm rate 1e-6, fixed seed. Mutants: steps half as
    long (its p-value is 1e-32), runs that stand still."""
    half = replace(SGD.experiment, step_size=SGD.experiment.step_size / 2)
    reference = race.replicas(SCAN, SGD.experiment)
    assert race.unlike(race.replicas(OURS, SGD.experiment), reference) <= race.UNLIKE
    assert race.unlike(race.replicas(OURS, half), reference) > race.UNLIKE
    assert race.unlike(np.tile(sphere_starts(TASK.seed, 1, 80), (1000, 1)), reference) > race.UNLIKE


def test_a_ratio_is_of_a_run_and_step_within_a_round():
    found = [lap(seed=1, seconds=1.0), lap(LOOP, 1, runs=1, seconds=2.0)]
    found += [lap(seed=2, seconds=2.0), lap(LOOP, 2, runs=1, seconds=6.0)]
    found += [lap(seed=3, seconds=4.0), lap(LOOP, 3, runs=1, seconds=4.0)]
    assert ratio(found, LOOP) == pytest.approx(60.0)  # 60, 90 and 30 times
    missed = [*found, lap(seed=4), lap(LOOP, 4, runs=1, apart=1.0)]
    assert np.isnan(ratio(missed, LOOP))


def test_a_target_is_for_the_full_size_only():
    slow = [lap(), lap(LOOP, runs=1), lap(SCAN)]
    assert [claim.holds for claim in claims(slow)] == [True, False, False]  # 30 and 1 times, 300 and 8 wanted
    assert [claim.holds for claim in claims([replace(one, problem=DESCENT.tiny().name) for one in slow])] == [
        True,
        None,
        None,
    ]
    lengths = claims([lap(problem=name, seconds=39.0) for name in race.LENGTHS])
    assert [claim.holds for claim in lengths] == [True, False, True, True, None]
    assert not any(claim.holds for claim in claims([lap(LOOP, apart=1.0), lap()]))


def test_the_record_of_laps_is_read_back_with_those_that_have_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.__main__.RESULTS", tmp_path)
    found = [lap(), lap(LOOP, runs=1, apart=1.0)]
    write("single-location", found, claims(found))
    kept, lost = read("single-location")[0]
    assert kept == found[0]
    assert np.isnan(lost.seconds) and replace(lost, seconds=1.0) == replace(found[1], seconds=1.0)
    assert Lap.table([kept, lost]).row_count == 2
    assert list(by_problem([kept, lost])) == [DESCENT.name]
