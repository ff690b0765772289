"""Records: strict JSON there and back, whole files or none, and a floor that is the count of free entries."""

import dataclasses
import json
import math

import numpy as np
import pytest

from attnlearn import records
from attnlearn.records import Certificate, Cost, Floor, Head, Judgement, Ledger, Phase, Record, Statement

STATEMENT = Statement("agreement", "It answers as the box does.", "None.", math.inf, 1e-6, False)
FULL = Record(
    source="minilm:0",
    status="NOT_CERTIFIED",
    sentence="Not certified.",
    evidence="error 2 where 1e-6 is allowed",
    seed=3,
    options={"heads": 2},
    width=4,
    width_out=5,
    slots={"mask": "Causal"},
    cost=Cost(10, 20, 100, 1.5, 0.5),
    ledger=Ledger(12, 24, 120, {1: 4, 2: 8}, {"learning": 10, "certificate": 2}),
    phases=(Phase("affine", {"rounds": 3, "ranks": [2, 2], "gap": math.nan}, 4, 0.1),),
    certificate=Certificate(False, math.inf, (STATEMENT,)),
    heads=(Head(1.0, 2.0, 0.0, 2, 3, 1e-9, None),),
    floor=Floor(40, 8),
    judgement=Judgement(1, 1e-9, 1e-10, 0.0, 0.0, None, 1e-8),
    conditioning={"atoms": 12.5},
    sentences=(("[CLS]", "ice", "##berg"),),
)


def test_a_record_comes_back_from_its_json_field_by_field():
    back = Record.from_json(FULL.to_json())
    for field in dataclasses.fields(Record):
        if field.name != "phases":
            assert getattr(back, field.name) == getattr(FULL, field.name), field.name
    assert back.phases[0] == Phase("affine", {"rounds": 3, "ranks": [2, 2], "gap": "nan"}, 4, 0.1)


def test_json_is_strict_and_takes_numpy_values():
    text = records.to_json({"a": np.float64(np.inf), "b": np.arange(2), "c": (np.bool_(True), np.int64(3))})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": "inf", "b": [0, 1], "c": [True, 3]}


def test_a_record_names_versions_and_machine_but_neither_host_nor_path():
    record = Record("f", "LEARNED", "Learned.")
    assert {"attnlearn", "jax", "numpy", "python"} <= set(record.versions)
    assert set(record.machine) == {"system", "architecture", "cores"}
    assert not record.recovered


def test_saving_then_loading_gives_record_and_arrays(tmp_path):
    arrays = {"spectrum_qk": np.arange(6.0).reshape(2, 3), "p_min": np.float64(0.25)}
    FULL.save(tmp_path / "new", arrays)
    record, back = Record.load(tmp_path / "new")
    assert record.heads == FULL.heads
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["arrays.npz", "record.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_part_of_the_new(tmp_path):
    path = tmp_path / "record.json"
    path.write_text("old")

    def broken(part):
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        records.write_whole(path, broken)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("record.json", "old")]


def test_arrays_that_would_need_a_pickle_are_refused(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        FULL.save(tmp_path, {"objects": np.array([{}, None], object)})


@pytest.mark.parametrize("name", ["record.json", "arrays.npz"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "foreign"])
def test_a_damaged_folder_is_refused_with_the_way_out(tmp_path, name, damage):
    FULL.save(tmp_path, {"a": np.arange(1000.0)})
    path = tmp_path / name
    content = path.read_bytes()
    changed = {"truncated": content[: len(content) // 2], "empty": b"", "foreign": b"\x93\xff no file of ours"}
    path.unlink() if damage == "missing" else path.write_bytes(changed[damage])
    with pytest.raises(ValueError, match=r"attnlearn recover SOURCE --out DIR"):
        Record.load(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", '{"schema": 1}', '{"schema": 1, "source": "a", "colour": 2}', "{}"])
def test_other_json_is_no_record(text):
    with pytest.raises(ValueError, match="no record of attnlearn"):
        Record.from_json(text)


def test_a_record_of_another_schema_is_refused_by_number():
    with pytest.raises(ValueError, match="schema 99 and this version of attnlearn reads schema 1"):
        Record.from_json(FULL.to_json().replace('"schema": 1', '"schema": 99'))


def test_the_floor_is_the_dimension_of_matrices_of_that_rank():
    """Against the rank of the differential of (A, B) -> A Bᵀ at random factors, which has that dimension."""
    key, d, d_out = np.random.default_rng(0), 5, 4
    heads = (Head(1.0, 1.0, 1.0, qk_rank=2, ov_rank=1), Head(1.0, 1.0, 1.0, qk_rank=3, ov_rank=4))

    def dimension(rows, columns, rank):
        a, b = key.standard_normal((rows, rank)), key.standard_normal((columns, rank))
        moves = [np.outer(np.eye(rows)[i], b[:, j]).ravel() for i in range(rows) for j in range(rank)]
        moves += [np.outer(a[:, j], np.eye(columns)[i]).ravel() for i in range(columns) for j in range(rank)]
        return int(np.linalg.matrix_rank(np.array(moves)))

    wanted = sum(dimension(d + 1, d, head.qk_rank) + dimension(d, d_out, head.ov_rank) for head in heads) + d_out
    assert records.floor(heads, d, d_out) == Floor(wanted, math.ceil(wanted / d_out))


def test_the_floor_of_minilm_is_the_published_count():
    """12 heads of rank 32 at width 384: 12 [32 (769 - 32) + 32 (768 - 32)] + 384."""
    heads = (Head(1.0, 1.0, 1.0, 32, 32),) * 12
    assert records.floor(heads, 384, 384) == Floor(566_016, 1_474)
