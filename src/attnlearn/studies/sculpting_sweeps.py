"""How far does each phase of sculpting come as one number of the problem changes? A function for each number.

The problem around which all turns is the middle one of the seed table: two heads, width 8, four tokens, norm 4,
40,000 examples. Truth is used after learning, to judge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attnlearn.data.distributions import Planted
from attnlearn.records import Study
from attnlearn.studies.sculpted import Question, sculpted, study

CENTRE = Planted(heads=2, width=8, tokens=4, norm=4.0, examples=40_000, seed=1)
SEEDS = (1, 2, 3)
FAITHFUL = 0.1  # a faithful error up to this, from a hull that is trusted, counts as found


@dataclass(frozen=True)
class Sweep:
    """One field of the problem, its values, and the seeds; `centre` is everything else."""

    along: str
    values: tuple[int | float, ...]
    question: str
    centre: Planted = CENTRE
    seeds: tuple[int, ...] = SEEDS
    name: str = ""  # of the study; by default "sculpting-" and the field

    def problems(self) -> list[Planted]:
        """Every value with every seed."""
        return [replace(self.centre, **{self.along: value, "seed": s}) for value in self.values for s in self.seeds]

    def run(self) -> Study:
        """The record, a row a problem."""
        question = Question(self.name or f"sculpting-{self.along}", self.question, self.answer)
        found = study(question, self.problems(), sculpted)
        return replace(found, design={**found.design, "along": self.along})

    def answer(self, rows: Sequence[dict[str, Any]]) -> str:
        """How many seeds each value gave a trusted hull, and exact circuits after the polish."""
        words = []
        for value in self.values:
            there = [row for row in rows if row[self.along] == value]
            found = sum(row["trusted"] and row["faithful"] <= FAITHFUL for row in there)
            exact = sum(row["qk"] is not None and row["qk"] <= 1e-10 for row in there)
            tail = "" if self.along == "noise" and value else f", {exact} exact"
            words.append(f"{value:g}: {found}{tail}")
        return f"Of {len(self.seeds)} seeds found in a trusted hull at each {self.along}: {'; '.join(words)}."


def sculpting_examples(sweep: Sweep | None = None) -> Study:
    """How many examples sculpting needs."""
    question = "How do the errors of the phases fall with the number of examples?"
    return (sweep or Sweep("examples", (2500, 5000, 10_000, 20_000, 40_000, 80_000, 160_000), question)).run()


def sculpting_examples_three_heads(sweep: Sweep | None = None) -> Study:
    """How many examples three heads need, at width 10 and two tokens."""
    question = "How do the errors of the phases fall with the number of examples, with three heads?"
    counts = (50_000, 100_000, 200_000, 400_000, 800_000)
    centre = Planted(heads=3, width=10, tokens=2, norm=4.0, examples=400_000, seed=0)
    name = "sculpting-examples-three-heads"
    return (sweep or Sweep("examples", counts, question, centre, (0, 1, 2, 5, 9), name)).run()


def sculpting_heads(sweep: Sweep | None = None) -> Study:
    """What each further head costs sculpting."""
    question = "How do acceptance and the errors of the phases change with the number of heads?"
    centre = replace(CENTRE, width=10, tokens=2, examples=200_000)
    return (sweep or Sweep("heads", (1, 2, 3, 4), question, centre)).run()


def sculpting_width(sweep: Sweep | None = None) -> Study:
    """Which widths sculpting takes: few functionals at small ones, many unknowns at large ones."""
    question = "How do the errors of the phases change with the width of a token?"
    return (sweep or Sweep("width", (4, 5, 6, 8, 10, 12), question)).run()


def sculpting_tokens(sweep: Sweep | None = None) -> Study:
    """How many tokens an example may have."""
    question = "How do the errors of the phases change with the number of tokens in an example?"
    return (sweep or Sweep("tokens", (2, 3, 4, 6, 8, 12), question)).run()


def sculpting_norm(sweep: Sweep | None = None) -> Study:
    """How decided attention must be: the norm of the attention matrices from flat to hard."""
    question = "How do the errors of the phases change with the norm of the attention matrices?"
    return (sweep or Sweep("norm", (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0), question)).run()


def sculpting_noise(sweep: Sweep | None = None) -> Study:
    """How much label noise each phase bears."""
    question = "How do the errors of the phases grow with the noise of the labels?"
    return (sweep or Sweep("noise", (0.0, 0.003, 0.01, 0.02, 0.05, 0.1), question)).run()


SWEEPS: dict[str, Callable[[], Study]] = {
    "sculpting-examples": sculpting_examples,
    "sculpting-examples-three-heads": sculpting_examples_three_heads,
    "sculpting-heads": sculpting_heads,
    "sculpting-width": sculpting_width,
    "sculpting-tokens": sculpting_tokens,
    "sculpting-norm": sculpting_norm,
    "sculpting-noise": sculpting_noise,
}
