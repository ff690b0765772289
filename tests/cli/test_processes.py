"""The command line as a process of its own: true exit codes, pipes and signals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from attnlearn.records import Record

# a shell's background jobs are born deaf to SIGINT
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
COMMAND = [sys.executable, "-c", INTERRUPTIBLE + "from attnlearn.cli import main; main()"]

LAYER = """
import time
import numpy as np

def attention(X):
    scores = X @ np.diag([1.0, -0.5, 0.3]) @ X.transpose(0, 2, 1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ X @ np.diag([1.0, 2.0, 3.0])
attention.width = 3

def failing(X):
    raise RuntimeError("out of order")

def slow(X):
    open("asked", "w").close()
    time.sleep(60)
slow.width = 3
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "boxes.py").write_text(LAYER)
    return tmp_path


def attnlearn(place, *words):
    environment = os.environ | {"NO_COLOR": "1", "MPLBACKEND": "agg"}
    return subprocess.run(
        [*COMMAND, *words], cwd=place, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_a_function_of_the_working_directory_is_recovered_into_a_pipe(place):
    done = attnlearn(place, "recover", "boxes:attention", "--json", "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["status"] == "RECOVERED"
    assert Record.load(place / "out")[0].recovered


@pytest.mark.slow
def test_a_black_box_that_raises_is_a_status_and_exit_code_1(place):
    done = attnlearn(place, "recover", "boxes:failing", "--width", "3")
    assert done.returncode == 1
    assert "Oracle failed" in done.stdout
    assert "RuntimeError: out of order" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_wrong_use_is_exit_code_2_in_one_line_on_standard_error(place):
    done = attnlearn(place, "recover", "boxes:failing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("attnlearn: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_an_interrupted_run_keeps_its_record_and_ends_with_1(place):
    running = subprocess.Popen(
        [*COMMAND, "recover", "boxes:slow", "--out", "out"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (place / "asked").exists() and running.poll() is None:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "Traceback" not in errors
    record, _ = Record.load(place / "out")
    assert record.status == "INTERRUPTED"
    assert (place / "out" / "index.html").exists()
