"""Every benchmark in its tiny size, and the questions that are counted in it."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import attnlearn as al
from bench import BENCHMARKS, clock
from bench.__main__ import app, read, run, write
from bench.data import KINDS, TINY, Shape, drawn, noisy, spoilt
from bench.objectives import errors
from bench.solvers import SEQUENCE, queries
from bench.trial import Claim, Problem, measure


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_its_tiny_size_reaches_the_targets(name):
    trials, claims = run(BENCHMARKS[name], tiny=True)
    assert trials
    assert [claim.what for claim in claims if claim.holds is False] == []


@pytest.mark.slow
def test_the_questions_of_a_trial_are_those_that_the_box_counted():
    oracles = []

    def source(seed):
        oracles.append(al.oracles.from_layer(drawn(TINY, seed)))
        return oracles[-1]

    trials = [measure(Problem("small", source), queries(), 3) for _ in range(2)]
    assert (trials[0].calls, trials[0].tokens) == (trials[1].calls, trials[1].tokens)
    for trial, oracle in zip(trials, oracles, strict=True):
        assert trial.calls == oracle.ledger.by_purpose["learning"]
        assert oracle.ledger.calls == trial.calls + oracle.ledger.by_purpose["certificate"]


@pytest.mark.slow
def test_the_student_gets_the_budget_that_its_name_says():
    trials, _ = run(BENCHMARKS["against-gradient"], tiny=True)
    ours, tokens, calls, fresh = trials
    assert tokens.calls == ours.tokens // SEQUENCE
    assert tokens.tokens == ours.tokens // SEQUENCE * SEQUENCE
    assert calls.calls == ours.calls
    assert 0.8 * 100 * ours.tokens <= fresh.tokens <= 1.2 * 100 * ours.tokens


def test_a_degenerate_kind_leaves_the_heads_that_it_should():
    left = {name: al.canonical(spoilt(Shape(8, 4, 2), (spoil,), 0)).heads for name, spoil in KINDS.items()}
    assert {name for name, heads in left.items() if heads == 3} == {"equal", "zero"}
    assert set(left.values()) == {3, 4}


def test_a_noisy_box_adds_the_noise_that_it_declares():
    layer = drawn(TINY, 0)
    X = np.random.default_rng(0).standard_normal((50, 10, TINY.d))
    added = noisy(layer, 1e-2, seed=0).ask(X) - layer(X)
    assert np.std(added) == pytest.approx(1e-2, rel=0.05)  # 8000 numbers: 6 standard deviations of the estimate


def test_no_layer_is_infinitely_far_away():
    assert errors(None, drawn(TINY, 0))["output"] == np.inf


def test_the_layer_itself_has_no_error():
    reached = errors(drawn(TINY, 0), drawn(TINY, 0))
    assert reached["heads"] == reached["true_heads"] == TINY.heads
    assert reached["qk"] == reached["output"] == 0


def test_a_compilation_inside_another_counts_once():
    with clock.compilations() as spans:
        record = clock.jax.monitoring.record_event_duration_secs
        record(clock.COMPILING + "inner", 1e-9)
        record(clock.COMPILING + "outer", 10.0)
        record("/elsewhere", 5.0)
    assert len(spans) == 1
    assert spans[0][1] - spans[0][0] == pytest.approx(10.0)


def test_a_claim_without_a_target_is_only_reported():
    assert Claim("seconds", 3.0).holds is None
    assert Claim("wrong", 1.0, "==", 0.0).holds is False


def test_writes_a_record_without_the_name_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.__main__.RESULTS", tmp_path)
    trial = measure(Problem("small", lambda seed: al.oracles.from_layer(drawn(TINY, 0))), queries(), 0)
    write("minilm", [trial], [Claim("calls", trial.calls, "<=", 1e4)])
    record = json.loads((tmp_path / "minilm.json").read_text())
    assert record["trials"][0]["calls"] == trial.calls
    assert record["claims"][0]["holds"] is True
    assert {"cores", "processor", "system"} <= record["machine"].keys()
    assert {"attnlearn", "jax", "numpy", "python"} <= record["versions"].keys()


def test_lists_every_benchmark_and_refuses_an_unknown_one():
    listed = CliRunner().invoke(app, ["--list"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in BENCHMARKS)
    assert CliRunner().invoke(app, ["nothing"]).exit_code == 2


def test_prints_its_tables_and_writes_nothing_when_tiny(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.__main__.RESULTS", tmp_path)
    shown = CliRunner().invoke(app, ["random-layers", "--tiny"])
    assert shown.exit_code == 0
    assert "wrong and called recovered" in shown.output
    assert list(tmp_path.iterdir()) == []


def test_shows_the_last_run_from_its_record(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.__main__.RESULTS", tmp_path)
    trials = [
        measure(Problem("d, m, dh = small", lambda seed: al.oracles.from_layer(drawn(TINY, 0))), solver, 0)
        for solver in (queries(), queries("impossible", rtol=1e-300))
    ]
    claims = BENCHMARKS["random-layers"].claims(trials)
    write("random-layers", trials, claims)
    assert read("random-layers") == (trials, claims)
    shown = CliRunner().invoke(app, ["random-layers", "--show"])
    assert shown.exit_code == 1  # not all recovered
    assert "NOT_CERTIFIED" in shown.output
