"""Descent in five scalars against descent of vectors, the authors' runs and the edge of stability.

Everything runs with 30 starts and one slope, the shape that is compiled once.
"""

import math
from functools import cache

import jax
import numpy as np
import pytest
from location_twins import agrees, golden, gram, of_vectors, random_pairs, setting, vector_step

from attnlearn.theory.single_location import basins, descend, embed, inverse_time, risk, sharpness, sphere_starts, zeta

GAMMA, D, L, ALPHA = math.sqrt(0.5), 400, 10, 4e-3
TASK = GAMMA, D, L
SPHERE = np.array(golden("initial_overlaps sphere")[0]["value"])
MANIFOLD = np.array(golden("initial_overlaps manifold")[0]["value"])
THEIRS = inverse_time(1e-4)
SWAPPED = [1, 2, 3, 4, 7, 10, 14, 15, 16, 18, 22, 23, 24, 26]  # the runs of experiment 3 that do not find the oracle


def filled(starts):
    """The starts, with rows of `SPHERE` up to 30."""
    return np.concatenate([starts, SPHERE[: 30 - len(starts)]])


SCHEDULED = filled(
    np.array([golden("trajectory init_sphere_schedule_" + run)[0]["inputs"]["overlaps"] for run in "05"])
)


def stepped(states, *args, **options):
    """The states after one step."""
    return descend(filled(states), *args, 1, 1, **options).overlaps[: len(states), 0]


@cache
def small_slope():
    """Experiments 1 and 3. Made once, and not by a fixture of the module: what that compiles serves no test."""
    return {start: descend(x, 0.1, *TASK, ALPHA, 20_000, 200) for start, x in (("m", MANIFOLD), ("s", SPHERE))}


@cache
def scheduled(length=500):
    """The first steps of experiment 4, each of them logged; run 0 is that of the reference."""
    return descend(SCHEDULED, 1.0, *TASK, ALPHA, length, 1, THEIRS)


@pytest.mark.parametrize("alpha", [1e-3, 4e-3, 0.1])
@pytest.mark.parametrize("lam", [0.1, 0.9])
def test_a_step_is_that_of_vectors_in_a_frame(key, alpha, lam):
    """Rounding: the largest entry of a gradient is of size 400, so that a step of .1 rounds at 40 times 1e-16."""
    states = of_vectors(*random_pairs(key, 30, 400))
    twin = of_vectors(*vector_step(*embed(states), alpha, lam, *TASK))
    assert np.abs(stepped(states, lam, *TASK, alpha) - twin).max() <= 1e-14


@pytest.mark.parametrize("d", [4, 5, 8])
def test_steps_are_those_of_whole_vectors(key, d):
    k, v = random_pairs(key, 30, d)
    path = descend(of_vectors(k, v), 0.5, 0.8, d, 3, 0.05, 20, 1).overlaps
    for step in range(20):
        k, v = vector_step(k, v, 0.05, 0.5, 0.8, d, 3)
        assert np.abs(path[:, step] - of_vectors(k, v)).max() <= 1e-13


@pytest.mark.parametrize("alpha", [4e-3, 0.1])
def test_states_stay_overlaps_of_unit_vectors(alpha):
    """Also where the step is far too long: there rounding grows to an eigenvalue of -3e-9 in 1000 steps."""
    path = descend(SPHERE, 1.0, *TASK, alpha, 1000, 250).overlaps
    assert np.linalg.eigvalsh(gram(path))[..., 0].min() > -1e-12


def test_a_path_turns_round_with_its_start():
    signs = np.array([-1, -1, -1, -1, 1])
    found, turned = (descend(x, 0.1, *TASK, ALPHA, 2000, 200) for x in (SPHERE, signs * SPHERE))
    assert np.array_equal(turned.overlaps, signs * found.overlaps)
    assert np.array_equal(turned.risk, found.risk)


def test_paths_are_those_of_the_authors_code():
    """In float64; the risk is theirs too, before the step and without the constant."""
    entries = golden("trajectory init_manifold") + golden("trajectory init_sphere_no_schedule")
    starts = list(dict.fromkeys(tuple(entry["inputs"]["overlaps"]) for entry in entries))
    for length, every in ((10, 1), (4000, 100)):
        found = descend(filled(np.array(starts)), 0.1, *TASK, ALPHA, length, every)
        for entry in (one for one in entries if one["inputs"]["step"] in found.steps):
            at = starts.index(tuple(entry["inputs"]["overlaps"])), found.steps.tolist().index(entry["inputs"]["step"])
            assert agrees(found.overlaps[at], entry, entry["value"]["overlaps_after_step"]), entry["id"]
            bare = found.risk_before_step[at] - (L - 1) * zeta(0.0, 0.1)
            assert agrees(bare, entry, entry["value"]["risk_before_step_without_constant"]), entry["id"]


def test_a_path_from_a_state_off_the_manifold_is_the_reference():
    for entry in golden("pgd_from_s"):
        inputs = entry["inputs"]
        starts = filled(np.array([inputs["overlaps"]]))
        found = descend(starts, *setting(inputs), inputs["alpha"], inputs["step"], inputs["step"])
        assert agrees(found.overlaps[0, 0], entry), entry["id"]


@pytest.mark.slow
def test_starts_on_the_manifold_end_near_the_optimum():
    (entry,) = golden("final init_manifold")
    found = small_slope()["m"]
    assert agrees(found.overlaps[:, -1], entry, entry["value"]["overlaps"])
    assert agrees(found.risk_before_step[:, -1], entry, entry["value"]["risk_before_last_step"])
    assert (basins(found.overlaps[:, -1]) == "oracle").all()
    assert not found.overlaps[..., 2:].any()


@pytest.mark.slow
def test_a_small_slope_swaps_fourteen_of_thirty_starts_on_the_sphere():
    (entry,) = golden("final init_sphere_no_schedule_small_lambda")
    found = small_slope()["s"]
    assert agrees(found.overlaps[:, -1], entry, entry["value"]["overlaps"])
    assert agrees(found.risk_before_step[:, -1], entry, entry["value"]["risk_before_last_step"])
    ends = basins(found.overlaps[:, -1])
    assert np.flatnonzero(ends == "swapped").tolist() == SWAPPED and (np.delete(ends, SWAPPED) == "oracle").all()
    assert found.risk[SWAPPED, -1] == pytest.approx(0.115512, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("start, largest", [("m", 1.68), ("s", 1.81)])
def test_a_small_slope_stays_below_the_edge_of_stability(start, largest):
    found = small_slope()[start]
    logs = np.moveaxis(found.overlaps, 1, 0)
    assert max(sharpness(states, 0.1, *TASK)[:, -1].max() for states in logs) * ALPHA == pytest.approx(
        largest, abs=0.01
    )
    assert found.warnings == ()


def test_three_overlaps_stay_exactly_zero_at_every_step():
    for lam, alpha in ((0.1, ALPHA), (1.0, 0.1)):
        path = descend(MANIFOLD, lam, *TASK, alpha, 50, 1).overlaps
        assert not path[..., 2:].any() and np.abs(path[..., :2]).max() <= 1


def test_the_scheduled_path_is_that_of_the_authors_code():
    found = scheduled(100)
    for entry in golden("trajectory init_sphere_schedule"):
        at = "05".index(entry["id"].split()[1][-1]), entry["inputs"]["step"] - 1
        assert agrees(found.overlaps[at], entry, entry["value"]["overlaps_after_step"]), entry["id"]
        bare = found.risk_before_step[at] - (L - 1) * zeta(0.0, found.lam[at])
        assert agrees(bare, entry, entry["value"]["risk_before_step_without_constant"]), entry["id"]


@pytest.mark.slow
def test_every_scheduled_step_is_that_of_vectors():
    """Beyond the edge of stability too, where only single steps can be compared."""
    for step in range(0, 500, 25):
        states, lam = scheduled().overlaps[:, step], 1 / (1 + 1e-4 * (step + 1))
        twin = of_vectors(*vector_step(*embed(states), ALPHA, lam, *TASK))
        assert np.abs(twin - scheduled().overlaps[:, step + 1]).max() <= 1e-13


@pytest.mark.slow
def test_the_scheduled_path_is_that_of_vectors_up_to_the_edge():
    """450 steps of run 0; two paths 1e-15 apart are 6e-12 apart at step 600."""
    k, v = embed(golden("edge_of_stability")[0]["inputs"]["overlaps"])
    for step in range(450):
        k, v = vector_step(k, v, ALPHA, 1 / (1 + 1e-4 * step), *TASK)
        assert np.abs(of_vectors(k, v) - scheduled().overlaps[0, step]).max() < 1e-12


@pytest.mark.slow
def test_the_edge_of_stability_is_named_at_the_step_where_it_is_crossed():
    (entry,) = golden("edge_of_stability")
    assert np.array_equal(entry["inputs"]["overlaps"], SCHEDULED[0])

    def products(step):
        """Step size times sharpness of every run before this step."""
        states = scheduled().overlaps[:, step - 1] if step else SCHEDULED
        return ALPHA * sharpness(states, THEIRS(step), *TASK)[:, -1]

    assert agrees(np.array([products(step)[0] for step in entry["inputs"]["step"]]), entry)
    assert {warning.run: 450 < warning.step < 480 for warning in scheduled().warnings}[0]
    for warning in scheduled().warnings:
        run, step, product = warning
        assert products(step)[run] == pytest.approx(product, rel=1e-12) and product > 2
        assert step == 0 or products(step - 1)[run] <= 2
        assert f"run {run} takes step {step} with step size times sharpness {product:.3f} > 2" in str(warning)


@pytest.mark.slow
def test_a_crossing_between_two_logs_is_found_by_bisection():
    """The same first steps as with a log at every step."""
    sparse = descend(SCHEDULED, 1.0, *TASK, ALPHA, 500, 50, THEIRS)
    first = {warning.run: warning.step for warning in scheduled().warnings}
    found = {warning.run: warning.step for warning in sparse.warnings}
    assert found[0] == first[0]
    assert all(first[run] <= step for run, step in found.items())


@pytest.mark.slow
def test_a_large_slope_finds_the_side_and_freezes():
    found = descend(SPHERE, 0.9, *TASK, 1e-3, 120_000, 1200)
    kappa, nu = np.abs(found.overlaps[:, -1, :2]).T
    assert (basins(found.overlaps[:, -1]) == "oracle").all() and found.warnings == ()
    assert ((kappa > 0.28) & (kappa < 0.31) & (nu > 0.95)).all()
    assert ((found.risk[:, -1] > 3.808) & (found.risk[:, -1] < 3.820)).all()
    logs = [SPHERE, *np.moveaxis(found.overlaps, 1, 0)]
    assert max(sharpness(x, 0.9, *TASK)[:, -1].max() for x in logs) * 1e-3 == pytest.approx(0.82, abs=0.01)


@pytest.mark.slow
def test_a_schedule_ends_in_two_states_only():
    """Paths beyond the edge of stability depend on rounding; the two ends do not."""
    found = descend(SPHERE, 1.0, *TASK, ALPHA, 120_000, 600, THEIRS)
    ends, last = basins(found.overlaps[:, -1]), np.abs(found.overlaps[:, -1])
    oracle, swapped = ends == "oracle", ends == "swapped"
    assert (oracle | swapped).all() and oracle.sum() >= 20
    assert np.abs(last[oracle, :2] - [0.999965, 1]).max() < 1e-6
    assert found.risk[oracle, -1] == pytest.approx(0.0750141, abs=1e-6)
    assert found.risk[swapped, -1] == pytest.approx(0.0688973, abs=1e-6)
    assert last[swapped, 2] == pytest.approx(0.8140, abs=1e-4)
    assert {warning.run for warning in found.warnings} == set(range(30))


@pytest.mark.slow
def test_half_of_the_starts_swap_at_a_small_slope():
    """510 starts against 1000: within 5 standard errors of the difference, .136; false alarm 6e-7."""
    (entry,) = golden("swapped_fraction lambda=0.1")
    steps = entry["inputs"]["n_steps"]
    starts = sphere_starts(0, 17 * 30, D).reshape(17, 30, 5)
    ends = np.array([basins(descend(x, 0.1, *TASK, ALPHA, steps, steps).overlaps[:, 0]) for x in starts])
    assert np.mean(ends == "swapped") == pytest.approx(entry["value"], abs=0.136)
    assert not (ends == "undecided").any()


def test_logs_are_after_the_step_at_the_slope_of_that_step():
    found = scheduled(100)
    assert found.steps.tolist() == list(range(1, 101))
    assert np.array_equal(found.lam, np.broadcast_to(1 / (1 + 1e-4 * np.arange(100)), (30, 100)))
    for log in (0, 7, 99):
        lam = float(found.lam[0, log])
        assert found.risk[:, log] == pytest.approx(risk(found.overlaps[:, log], lam, *TASK), rel=1e-14)
    before = risk(found.overlaps[:, 6], float(found.lam[0, 7]), *TASK)
    assert found.risk_before_step[:, 7] == pytest.approx(before, rel=1e-14)


@pytest.mark.slow
def test_sparse_logs_are_rows_of_dense_ones():
    sparse = descend(SCHEDULED, 1.0, *TASK, ALPHA, 100, 50, THEIRS)
    assert sparse.steps.tolist() == [50, 100] and sparse.overlaps.shape == (30, 2, 5)
    for field in ("overlaps", "risk", "risk_before_step", "lam"):
        assert np.abs(getattr(sparse, field) - getattr(scheduled(100), field)[:, [49, 99]]).max() <= 1e-12, field


def test_leading_axes_are_those_of_the_starts():
    starts = SPHERE.reshape(5, 6, 5)
    found = descend(starts, 0.1, *TASK, ALPHA, 4, 2)
    flat = descend(SPHERE, 0.1, *TASK, ALPHA, 4, 2)
    for field, shape in (
        ("overlaps", (5, 6, 2, 5)),
        ("risk", (5, 6, 2)),
        ("risk_before_step", (5, 6, 2)),
        ("lam", (5, 6, 2)),
    ):
        assert getattr(found, field).shape == shape
        assert np.array_equal(getattr(found, field).reshape(30, *shape[2:]), getattr(flat, field))
    assert found.steps.shape == (2,)


@pytest.mark.slow
def test_one_start_and_one_slope_for_every_run_are_what_they_say():
    alone = descend(SPHERE[3], 0.1, *TASK, ALPHA, 4, 2)
    together = descend(SPHERE, 0.1, *TASK, ALPHA, 4, 2)
    assert alone.overlaps.shape == (2, 5) and alone.risk.shape == alone.lam.shape == (2,)
    assert np.abs(alone.overlaps - together.overlaps[3]).max() <= 1e-15
    lam = np.resize([0.1, 0.5, 0.9], 30)
    mixed = descend(SPHERE, lam, *TASK, ALPHA, 4, 2)
    for slope in (0.1, 0.5, 0.9):
        those = descend(SPHERE, slope, *TASK, ALPHA, 4, 2)
        assert np.abs(mixed.overlaps - those.overlaps)[lam == slope].max() <= 1e-15
    assert np.array_equal(mixed.lam, np.stack([lam, lam], axis=1))


def test_a_schedule_of_the_users_own_is_followed():
    half = descend(SPHERE, 0.4, *TASK, ALPHA, 20, 1, lambda step: 1.0 if step < 12 else 0.5)
    first = descend(SPHERE, 0.4, *TASK, ALPHA, 12, 12)
    second = descend(first.overlaps[:, 0], 0.2, *TASK, ALPHA, 8, 8)
    assert half.lam[0].tolist() == [0.4] * 12 + [0.2] * 8
    assert np.array_equal(half.overlaps[:, 11], first.overlaps[:, 0])
    assert np.array_equal(half.overlaps[:, -1], second.overlaps[:, 0])
    assert inverse_time(0.5)(4) == 1 / 3 and inverse_time(1e-4)(0) == 1


def test_runs_are_float64_whatever_the_setting_of_jax():
    assert not jax.config.jax_enable_x64
    found = descend(SPHERE, 0.1, *TASK, ALPHA, 2, 1)
    assert all(array.dtype == np.float64 for array in (found.overlaps, found.risk, found.lam, found.risk_before_step))
    assert np.issubdtype(found.steps.dtype, np.integer)


def test_runs_of_no_whole_number_of_logs_are_refused():
    cases = {
        (10, 3): "n_steps must be a multiple of log_every, got 10 and 3: take n_steps = 9",
        (2, 4): "n_steps must be a multiple of log_every, got 2 and 4: take n_steps = 4",
        (0, 1): "n_steps must be a whole number from 1 on, got 0",
        (10, 0): "log_every must be a whole number from 1 on, got 0",
    }
    for lengths, message in cases.items():
        with pytest.raises(ValueError, match=message):
            descend(SPHERE, 0.1, *TASK, ALPHA, *lengths)
    with pytest.raises((ValueError, TypeError), match="a schedule must map a step to a factor|Type-check error"):
        descend(SPHERE, 0.1, *TASK, ALPHA, 2, 1, 3)


def test_schedules_without_a_positive_factor_are_refused():
    for factor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="the schedule must give finite factors above 0, got .* at step 3"):
            descend(SPHERE, 0.1, *TASK, ALPHA, 5, 5, lambda step, last=factor: last if step == 3 else 1.0)
    for rate in (-1e-4, math.nan, math.inf):
        with pytest.raises(ValueError, match="the rate of a schedule must be finite and at least 0"):
            inverse_time(rate)


def test_wrong_numbers_are_refused():
    cases = [
        ({"lam": 0.0}, "lam must be finite and above 0"),
        ({"lam": math.nan}, "lam must be finite and above 0"),
        ({"gamma": -1.0}, "gamma must be finite and above 0"),
        ({"step_size": 0.0}, "step_size must be finite and above 0"),
        ({"step_size": math.inf}, "step_size must be finite and above 0"),
        ({"d": 3}, "whole number from 4 on, got d = 3"),
        ({"n_tokens": 1}, "2 tokens or more, a whole number, got n_tokens = 1"),
        ({"overlaps": [[1, 1, 0.2, 0, 0]]}, "no unit vectors k, v have the overlaps"),
        ({"overlaps": [[0, math.nan, 0, 0, 0]]}, "overlaps must be finite, got NaN"),
    ]
    right = {"overlaps": SPHERE, "lam": 0.1, "gamma": GAMMA, "d": D, "n_tokens": L, "step_size": ALPHA}
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            descend(**(right | wrong), n_steps=1, log_every=1)
