"""The journal keeps figures, arrays and costs through a stop."""

import numpy as np
import pytest

import attnlearn as al
from attnlearn._progress import listening
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.journal import Journal


@pytest.fixture
def oracle():
    return al.oracles.from_layer(al.random_layer(0, heads=1, width=3))


def test_a_stage_is_timed_counted_and_announced(oracle, key):
    oracle.ask(key.standard_normal((2, 1, 3)))
    journal, heard = Journal(oracle), []
    with listening(lambda *report: heard.append(report)), journal.stage("atoms") as figures:
        oracle.ask(key.standard_normal((5, 2, 3)))
        figures["heads"] = 4
    learned = journal.learned(Status.LEARNED, "said")
    (phase,) = learned.phases
    assert (phase.name, phase.figures, phase.calls) == ("atoms", {"heads": 4}, 5)
    assert 0 <= phase.seconds <= learned.cost.seconds
    assert (learned.cost.calls, learned.cost.tokens, learned.cost.scalars) == (5, 10, 30)  # not what came before
    assert heard == [("atoms", 0, 0)]
    assert (learned.status, learned.evidence, learned.layer) == (Status.LEARNED, "said", None)


def test_a_stage_that_stops_is_kept_with_what_it_had(oracle, key):
    journal = Journal(oracle)

    def half_a_stage():
        with journal.stage("affine") as figures:
            figures["causal"] = False
            oracle.ask(key.standard_normal((3, 1, 3)))
            raise Stop(Status.ORACLE_FAILED, "half way")

    with pytest.raises(Stop, match="half way"):
        half_a_stage()
    journal.keep(offset=np.ones(3))
    journal.note(Stop(Status.HEADS_UNRESOLVED, "two of three"))
    learned = journal.learned(Status.ORACLE_FAILED, "")
    assert learned.phases[0].calls == 3
    assert learned.phases[0].figures["causal"] is False
    assert learned.phases[0].figures["left_for"].endswith("two of three")
    np.testing.assert_array_equal(learned.arrays["offset"], np.ones(3))
    assert journal.stage_name == "affine"
