"""Ours against an Adam-trained student of the same architecture: what one would do instead."""

from collections.abc import Iterator
from dataclasses import dataclass

import attnlearn as al
from bench.data import TINY, Shape, drawn
from bench.solvers import SEQUENCE, Student, queries
from bench.trial import Benchmark, Claim, Problem, Trial, by_problem, measure

FACTOR = 100  # times the tokens that ours asks, all of them fresh


@dataclass(frozen=True)
class Contest:
    """A problem and the student that is trained on it. A round takes over 30 s: one round."""

    problem: Problem
    student: Student


def contests(tiny: bool) -> list[Contest]:
    if tiny:
        small = drawn(TINY, 100)
        return [
            Contest(Problem("random, d = 16, m = 2", lambda seed: al.oracles.from_layer(small)), Student(2, 4, 40, 4))
        ]
    layer = drawn(Shape(64, 8, 8), 100)
    return [
        Contest(Problem("random, d = 64, m = 8", lambda seed: al.oracles.from_layer(layer)), Student(8, 8, 2000, 64)),
        Contest(Problem("MiniLM layer 0", lambda seed: al.pretrained("minilm")), Student(12, 32, 1000, 32)),
    ]


def trials(tiny: bool) -> Iterator[Trial]:
    for contest in contests(tiny):
        problem, student = contest.problem, contest.student
        yield (ours := measure(problem, queries(), 0))
        yield measure(problem, student.on_fixed("Adam, equal tokens", ours.tokens), 0)
        yield measure(problem, student.on_fixed("Adam, equal calls", ours.calls * SEQUENCE), 0)
        yield measure(problem, student.on_fresh(f"Adam, {FACTOR} times the tokens", FACTOR * ours.tokens), 0)


def claims(found: list[Trial]) -> list[Claim]:
    rows = []
    for problem, (ours, *others) in by_problem(found).items():
        rows.append(Claim(f"{problem}: worst head Θ of ours", ours.qk, "<=", 1e-8))
        for adam in others:
            name = f"{problem}: {adam.solver} over ours"
            rows.append(Claim(f"{name}, worst head Θ", adam.qk / ours.qk))
            rows.append(Claim(f"{name}, seconds", adam.seconds / ours.seconds))
    return rows


BENCHMARK = Benchmark(
    "How far does gradient descent come with the same questions, and with many more, where queries are exact?",
    trials,
    claims,
)
