"""A child process answers for a function; whatever happens to it is said."""

import os
import sys
import time

import numpy as np
import pytest

from attnlearn import oracles
from attnlearn._status import Status, Stop

FUNCTIONS = """
import os
import numpy as np

OV = np.arange(6.0).reshape(3, 2)

def linear(X):
    return X @ OV

def declared(X):
    return X @ OV
declared.width = 3

def prints(X):
    print("not an answer")
    os.write(1, b"nor this")
    return X @ OV

def raises(X):
    raise ArithmeticError("no answer today")

def dies(X):
    os._exit(7)

def objects(X):
    return np.array([None])

def float32(X):
    assert X.dtype == np.float32
    return X @ OV.astype(np.float32)

def process(X):
    return np.full((*X.shape[:2], 1), float(os.getpid()))

class Box:
    @staticmethod
    def answer(X):
        return X @ OV
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "users_functions.py").write_text(FUNCTIONS)
    (tmp_path / "exits_on_import.py").write_text("import os; os._exit(5)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("users_functions", None)


def failed(oracle, X):
    with pytest.raises(Stop) as caught:
        oracle.ask(X)
    assert caught.value.status is Status.ORACLE_FAILED
    return caught.value.evidence


@pytest.mark.parametrize("function", ["linear", "declared", "prints", "Box.answer"])
def test_answers_as_the_function_itself(function, key):
    X = key.normal(size=(70, 4, 3))
    with oracles.isolated(f"users_functions:{function}", width=3) as oracle:
        np.testing.assert_array_equal(oracle.ask(X), X @ np.arange(6.0).reshape(3, 2))
        assert oracle.ledger.calls == 70 and oracle.name == f"users_functions:{function}" and oracle.truth is None


def test_the_function_runs_in_another_process_and_is_not_imported_here():
    with oracles.isolated("users_functions:process", width=3) as oracle:
        assert oracle.ask(np.zeros((1, 1, 3))).item() != os.getpid()
    assert "users_functions" not in sys.modules


def test_float32_crosses_the_pipe(key):
    with oracles.isolated("users_functions:float32", width=3, dtype="float32") as oracle:
        assert oracle.ask(key.normal(size=(2, 4, 3))).shape == (2, 4, 2)


def test_a_declared_width_is_taken():
    with oracles.isolated("users_functions:declared") as oracle:
        assert oracle.width == 3


def test_says_what_the_child_raised_and_goes_on():
    with oracles.isolated("users_functions:raises", width=3) as oracle:
        for _ in range(2):
            assert "ArithmeticError: no answer today" in failed(oracle, np.zeros((1, 1, 3)))


def test_objects_do_not_cross_the_pipe():
    with oracles.isolated("users_functions:objects", width=3) as oracle:
        assert "Object arrays cannot be saved" in failed(oracle, np.zeros((1, 1, 3)))


def test_says_so_when_the_child_dies():
    with oracles.isolated("users_functions:dies", width=3) as oracle:
        assert "the child process ended with exit code 7" in failed(oracle, np.zeros((1, 1, 3)))
        assert "was closed" in failed(oracle, np.zeros((1, 1, 3)))


def test_says_so_when_asked_after_closing():
    oracle = oracles.isolated("users_functions:linear", width=3)
    oracle.close()
    oracle.close()
    assert "the child process was closed" in failed(oracle, np.zeros((1, 1, 3)))


def test_the_child_ends_with_its_oracle():
    oracle = oracles.isolated("users_functions:linear", width=3)
    process = oracle._child._process
    del oracle
    assert process.poll() == 0


def test_the_child_is_closed_after_an_interrupt(monkeypatch):
    from attnlearn.data import _child

    oracle = oracles.isolated("users_functions:linear", width=3)

    def interrupted(pipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(_child, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        oracle.ask(np.zeros((1, 1, 3)))
    assert oracle._child._process.poll() is not None


def test_a_child_that_does_not_end_is_killed(tmp_path, monkeypatch):
    from attnlearn.data import isolated

    monkeypatch.setattr(isolated, "SECONDS_TO_END", 0.1)
    (tmp_path / "stays.py").write_text("import atexit, time\natexit.register(time.sleep, 60)\ndef f(X): return X\n")
    began = time.monotonic()
    oracles.isolated("stays:f", width=3).close()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("make", [oracles.isolated, oracles.from_function])
@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("nowhere:linear", 3, "ModuleNotFoundError: No module named 'nowhere'"),
        ("users_functions:missing", 3, "AttributeError: .*missing"),
        ("users_functions", 3, "wanted 'module:function', got 'users_functions'"),
        ("users_functions:linear", None, "the width of 'users_functions:linear' is not known: give width="),
        ("users_functions:linear", 0, "width must be at least 1"),
    ],
)
def test_refuses_a_function_that_cannot_be_asked(make, name, width, message):
    with pytest.raises(ValueError, match=message):
        make(name, width=width)


def test_refuses_a_module_whose_import_ends_the_child():
    with pytest.raises(ValueError, match="ended with exit code 5 while importing"):
        oracles.isolated("exits_on_import:f", width=3)


def test_a_function_by_name_is_asked_in_this_process(key):
    X = key.normal(size=(2, 4, 3))
    oracle = oracles.from_function("users_functions:declared", max_queries=2)
    np.testing.assert_array_equal(oracle.ask(X), X @ np.arange(6.0).reshape(3, 2))
    assert oracle.width == 3 and oracle.remaining == 0 and oracle.name == "users_functions:declared"
