"""The record of a run: what is said about a layer, and what the truth adds after learning."""

from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
import pytest

import attnlearn as al
from attnlearn import records
from attnlearn.data import oracles
from attnlearn.judgement import Run, head_table, record_of

RUN = Run("layer.safetensors", "auto", 7, {"head_dim": 3})


COST, LEDGER = records.Cost(10, 20, 120, 0.5), records.Ledger(10, 20, 120, {2: 10}, {"learning": 10})
PHASE = records.Phase("atoms", {"conditioning": 4.0, "cond_ov": 9.0, "t": 2.0}, 10, 0.5)
CERTIFICATE = records.Certificate(True, 1e-12)


@dataclass(frozen=True)
class Result:
    """What `recover` returns, as far as a record needs it."""

    layer: Any
    status: Any = al.Status.RECOVERED
    cost: Any = COST
    certificate: Any = CERTIFICATE
    phases: tuple = (PHASE,)
    ledger: Any = LEDGER
    evidence: str = ""
    arrays: dict = field(default_factory=dict)


@pytest.fixture
def truth():
    return al.random_layer(0, heads=3, width=6, head_dim=2)


@pytest.fixture
def oracle(truth, key):
    oracle = oracles.from_layer(truth)
    oracle.activations = [key.standard_normal((k, 6)) for k in (4, 5, 30, 3, 2)]
    oracle.tokens = [[f"w{j}" for j in range(len(X))] for X in oracle.activations]
    return oracle


def reordered(layer, order, factor=1.0):
    return al.AttentionLayer(layer.qk[order] * factor, layer.ov[order], layer.query_bias[order], layer.offset)


@pytest.mark.slow
def test_a_reordered_truth_has_no_error_and_its_maps_stand_in_the_order_learned(truth, oracle):
    record, arrays = record_of(Result(reordered(truth, [2, 0, 1])), oracle, RUN)
    assert record.judgement is not None
    *circuits, maps, outputs = astuple(record.judgement)
    assert circuits == [3, 0.0, 0.0, 0.0, 0.0]
    assert maps == 0.0
    assert outputs == pytest.approx(0, abs=1e-14)  # heads are summed in another order
    assert all(head.qk_error == head.ov_error == 0 for head in record.heads)
    for n in range(3):
        assert np.array_equal(arrays[f"maps_learned_{n}"], arrays[f"maps_true_{n}"])


def test_errors_belong_to_the_learned_head(truth, oracle):
    learned = reordered(truth, [2, 0, 1])
    learned = al.AttentionLayer(learned.qk * np.array([1, 1.01, 1])[:, None, None], learned.ov)
    record, _ = record_of(Result(learned), oracle, RUN)
    assert [head.qk_error for head in record.heads] == pytest.approx([0, 0.01, 0])
    assert record.judgement is not None
    assert record.judgement.qk == pytest.approx(0.01)
    assert record.judgement.maps is not None
    assert record.judgement.maps > 0


def test_only_short_sentences_are_shown(truth, oracle):
    record, _ = record_of(Result(truth), oracle, RUN)
    assert [len(pieces) for pieces in record.sentences] == [4, 5, 3]


def test_a_missing_head_is_judged_without_a_partner_for_every_head(truth, oracle):
    record, arrays = record_of(Result(reordered(truth, [0, 1])), oracle, RUN)
    assert record.judgement is not None
    assert (record.judgement.heads, record.judgement.qk) == (3, np.inf)
    assert record.heads[0].qk_error is None
    assert "maps_true_0" not in arrays


def test_without_a_truth_there_is_no_judgement(truth):
    oracle = oracles.from_layer(truth)
    oracle.truth = None
    record, arrays = record_of(Result(truth), oracle, RUN)
    assert record.judgement is None
    assert record.sentences == ()
    assert set(arrays) == {"spectrum_qk", "spectrum_ov"}


def test_the_head_table_holds_norms_and_ranks(truth):
    heads, spectra = head_table(truth)
    for i, head in enumerate(heads):
        assert head.qk_norm == pytest.approx(np.linalg.norm(truth.qk[i]))
        assert head.ov_norm == pytest.approx(np.linalg.norm(truth.ov[i]))
        assert (head.qk_rank, head.ov_rank) == (2, 2)
    assert spectra["spectrum_qk"].shape == (3, 6)


def test_the_record_says_what_was_asked_and_what_it_cost(truth, oracle):
    record, _ = record_of(Result(truth), oracle, RUN)
    assert (record.source, record.seed, record.options) == ("layer.safetensors", 7, {"head_dim": 3})
    assert (record.status, record.sentence) == ("RECOVERED", al.Status.RECOVERED.value)
    assert (record.width, record.width_out, record.dtype) == (6, 6, "float64")
    assert record.slots == {"normaliser": "Softmax", "mask": "none"}
    assert record.conditioning == {"atoms": 4.0, "atoms: ov": 9.0}
    assert record.floor == records.floor(record.heads, 6, 6)
    assert records.Record.from_json(record.to_json()) == record


def test_measured_spectra_are_kept_and_stage_arrays_only_without_a_layer(truth, oracle):
    stage = {"atoms": np.eye(3), "spectrum_qk": np.ones((3, 4))}
    _, arrays = record_of(Result(truth, arrays=stage), oracle, RUN)
    assert arrays["spectrum_qk"].shape == (3, 4)
    assert "atoms" not in arrays
    record, arrays = record_of(Result(None, al.Status.ISOLATION_FAILED, certificate=None, arrays=stage), oracle, RUN)
    assert set(arrays) == set(stage)
    assert record.heads == ()
    assert record.judgement is None


def test_the_record_of_examples_counts_them_and_shows_the_first_ones(truth, key):
    X = key.standard_normal((5, 4, 6)).astype(np.float32)
    mask = np.arange(4) < np.array([4, 2, 3, 4, 1])[:, None]
    examples = al.Examples(X, truth(X, mask), mask, truth=truth)
    cost = records.Cost(len(examples), examples.tokens, examples.scalars, 0.5)
    record, arrays = record_of(Result(reordered(truth, [2, 0, 1]), cost=cost, ledger=None), examples, RUN)
    assert (record.examples, record.dtype, record.noise) == (5, "float32", 0.0)
    assert (record.width, record.width_out, record.ledger) == (6, 6, None)
    assert record.sentences == (("1", "2", "3", "4"), ("1", "2"), ("1", "2", "3"))
    assert np.array_equal(arrays["maps_learned_1"], arrays["maps_true_1"])
    assert record.judgement is not None
    assert (record.judgement.qk, record.judgement.maps) == (0.0, 0.0)
    assert records.Record.from_json(record.to_json()) == record


def test_long_examples_are_not_shown(truth, key):
    X = key.standard_normal((2, 30, 6))
    record, arrays = record_of(Result(truth, ledger=None), al.Examples(X, truth(X)), RUN)
    assert record.sentences == ()
    assert record.judgement is None
    assert set(arrays) == {"spectrum_qk", "spectrum_ov"}
