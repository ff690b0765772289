"""Files of examples: what is saved comes back; what cannot be read is said; folders stay on disk."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import attnlearn as al
from attnlearn.data import example_files, stored
from attnlearn.data.example_files import is_examples

FILES = ["data.npz", "data.safetensors", "data.parquet", "data.zarr", "data"]


@pytest.fixture
def examples(key):
    """Tokens in float32, outputs in float64, sequences of different lengths with a gap in one of them."""
    X, Y = key.standard_normal((7, 4, 3)).astype(np.float32), key.standard_normal((7, 4, 2))
    mask = np.arange(4) < np.array([4, 1, 2, 3, 4, 2, 3])[:, None]
    mask[0, 1] = False
    X[~mask] = np.nan
    return al.Examples(X, Y, mask)


def same(a, b):
    masks = (a.mask is None) == (b.mask is None) and (a.mask is None or np.array_equal(a.mask, b.mask))
    arrays = np.array_equal(a.inputs.X, b.inputs.X) and np.array_equal(a.targets, b.targets)
    return masks and arrays and (a.rows, a.dtype) == (b.rows, b.dtype)


@pytest.mark.parametrize("name", FILES)
def test_what_is_saved_comes_back(tmp_path, examples, monkeypatch, name):
    monkeypatch.setattr(stored, "CHUNK_BYTES", 2 * 8 * 4 * 3)  # two sequences
    pooled = al.Examples(examples.inputs.X, examples.Y[:, 0], examples.mask, "mean")
    onehot = al.Examples(np.eye(3, dtype=int)[None].repeat(2, axis=0), np.ones((2, 1)), rows="last")
    for given in (examples, pooled, onehot):
        given.save(tmp_path / name)  # over an older one
        assert same(al.Examples.load(tmp_path / name), given)
        assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["data.zarr", "data"])
def test_a_folder_stays_on_disk(tmp_path, examples, name):
    examples.save(tmp_path / name)
    found = al.Examples.load(tmp_path / name)
    assert found.on_disk and not isinstance(found.X, al.Examples)
    kept, held = found.split(0.4, np.random.default_rng(0))
    assert kept.on_disk and held[::-1].on_disk
    memory, _ = examples.split(0.4, np.random.default_rng(0))
    assert same(kept, memory)
    parts = list(kept[::-1].chunks(3))
    assert not any(part.on_disk for part in parts)
    assert np.array_equal(np.concatenate([part.X for part in parts]), memory.X[::-1])
    assert (found.duplicates, found.constant) == (0, False)
    found.save(tmp_path / name)  # over the arrays that it reads from
    assert same(al.Examples.load(tmp_path / name), examples)


def test_arrays_on_disk_are_checked_a_chunk_at_a_time(tmp_path, examples, monkeypatch):
    examples.save(tmp_path / "data")
    Y = np.load(tmp_path / "data" / "Y.npy", mmap_mode="r+")
    Y[2, 0, 1], Y[1, 3, 0] = np.nan, np.nan  # the second is absent
    Y.flush()
    monkeypatch.setattr(stored, "CHUNK_BYTES", 1)
    with pytest.raises(ValueError, match=r"data: Y has 1 values that are NaN or infinite, the first is Y\[2, 0, 1\]"):
        al.Examples.load(tmp_path / "data")


def test_a_lost_chunk_of_zarr_is_noticed(tmp_path, examples):
    examples.save(tmp_path / "data.zarr")
    chunks = [path for path in (tmp_path / "data.zarr" / "Y").rglob("*") if path.is_file() and path.name != "zarr.json"]
    chunks[0].unlink()
    with pytest.raises(ValueError, match="Y has .* values that are NaN"):
        al.Examples.load(tmp_path / "data.zarr")


def test_an_npz_of_your_own_is_read(tmp_path, examples):
    X, Y = examples.inputs.X, examples.Y
    np.savez(tmp_path / "own.npz", x=X, y=Y[:, 0])
    found = al.Examples.load(tmp_path / "own.npz", rows="last")
    assert (found.rows, len(found)) == ("last", 7)
    with pytest.raises(ValueError, match='own.npz: Y must be .* One output a sequence goes with rows="last"'):
        al.Examples.load(tmp_path / "own.npz")
    found.save(tmp_path / "said.npz")
    with pytest.raises(ValueError, match="holds rows='last', asked for was rows='mean'"):
        al.Examples.load(tmp_path / "said.npz", rows="mean")


def test_a_parquet_file_of_your_own_needs_no_shape(tmp_path):
    rows = {"sequence": [1, 0, 1], "position": [1, 0, 0], "x": [[3.0, 4], [1, 2], [5, 6]], "y": [[1.0], [2], [3]]}
    parquet.write_table(pa.table(rows), tmp_path / "own.parquet")
    found = al.Examples.load(tmp_path / "own.parquet")
    assert np.array_equal(found.X, [[[1, 2], [0, 0]], [[5, 6], [3, 4]]])
    assert np.array_equal(found.mask, [[True, False], [True, True]])
    wrong = {"position": [0, 0, 0], "x": [[3.0, 4], [1, 2], [5]], "y": [[1.0], None, None]}
    said = {"position": "stand in it twice", "x": "lists of numbers", "y": "for every token, or one for every sequence"}
    for name, values in wrong.items():
        parquet.write_table(pa.table(rows | {name: values}), tmp_path / "own.parquet")
        with pytest.raises(ValueError, match=said[name]):
            al.Examples.load(tmp_path / "own.parquet")
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "own.parquet")
    with pytest.raises(ValueError, match="it has no column position, sequence, y; it has x"):
        al.Examples.load(tmp_path / "own.parquet")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(tmp_path, examples, name):
    examples.save(tmp_path / name)
    file = tmp_path / name if (tmp_path / name).is_file() else next((tmp_path / name).rglob("[Xz]*.[nj]*"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="Cannot read examples from .* Wanted: a whole file or folder"):
        al.Examples.load(tmp_path / name)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.ones(2)}, "it holds a; wanted are arrays named X and Y"),
        ({"X": np.ones(2), "x": np.ones(2), "Y": np.ones(2)}, "it holds X, Y, x; wanted"),
        ({"X": np.array([None]), "Y": np.ones(2)}, "Object arrays cannot be loaded"),
    ],
)
def test_foreign_arrays_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "foreign.npz", **arrays)
    with pytest.raises(ValueError, match=said):
        al.Examples.load(tmp_path / "foreign.npz")


def test_files_that_are_something_else_are_refused(tmp_path, examples):
    (tmp_path / "text.npz").write_text("a,b\n")
    with pytest.raises(ValueError, match="no npz archive, or not a whole one"):
        al.Examples.load(tmp_path / "text.npz")
    al.random_layer(0, width=2).save(tmp_path / "layer.safetensors")
    with pytest.raises(ValueError, match="it holds offset, ov, qk, query_bias"):
        al.Examples.load(tmp_path / "layer.safetensors")
    np.savez(tmp_path / "words.npz", X=np.full((1, 1, 1), "a"), Y=np.ones((1, 1, 1)))
    with pytest.raises(ValueError, match="words.npz: X must hold real numbers, got dtype <U1"):
        al.Examples.load(tmp_path / "words.npz")
    with pytest.raises(ValueError, match="there is no .*nosuch.npz"):
        al.Examples.load(tmp_path / "nosuch.npz")
    with pytest.raises(ValueError, match="data.npx' has the unknown suffix '.npx'. Wanted: data.npz"):
        examples.save(tmp_path / "data.npx")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="exists and holds no examples"):
        examples.save(tmp_path / "papers")
    assert (tmp_path / "papers" / "thesis.tex").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_failed_write_leaves_the_older_file(tmp_path, examples, monkeypatch, name):
    examples.save(tmp_path / name)
    broken = examples[:3]

    def piece(self, name, part):
        raise OSError("disk full")

    monkeypatch.setattr(example_files.Parts, "piece", piece)
    with pytest.raises(OSError, match="disk full"):
        broken.save(tmp_path / name)
    monkeypatch.undo()
    assert same(al.Examples.load(tmp_path / name), examples)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("name", "package"), [("data.parquet", "pyarrow"), ("data.zarr", "zarr")])
def test_a_missing_package_is_named_with_the_way_out(tmp_path, examples, monkeypatch, name, package):
    examples.save(tmp_path / name)
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package} is needed .* pip install 'attnlearn\[data\]'"):
        al.Examples.load(tmp_path / name)
    with pytest.raises(ImportError, match=package):
        examples.save(tmp_path / name)


def test_examples_are_told_from_layers_by_name_or_content(tmp_path, examples):
    for name in FILES:
        examples.save(tmp_path / name)
        assert is_examples(tmp_path / name)
    al.random_layer(0, width=2).save(tmp_path / "layer.safetensors")
    (tmp_path / "broken.safetensors").write_text("x")
    for name in ("layer.safetensors", "broken.safetensors", "nosuch.safetensors", "nosuch", "module:function"):
        assert not is_examples(tmp_path / name)
