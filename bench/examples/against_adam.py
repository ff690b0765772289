"""Time to the target against Adam, tuned in hindsight, and L-BFGS, on the same examples."""

from collections.abc import Iterator

from bench.examples.contest import compared, contest, part_solved, ratio, rounds
from bench.examples.fit import Fit, best, chosen
from bench.examples.hard import HEADS
from bench.examples.picture import picture
from bench.examples.planted import Planted
from bench.trial import Benchmark, Claim, by_problem

SEEDS = 10
EASY = {Planted(8, 2, 16): 5, Planted(8, 4, 16): 5, Planted(16, 4, 16): 3, Planted(32, 4, 16): 2}  # seeds of baselines
HARD = {Planted(8, 4, 16, logit_std=4.0): 4, Planted(8, 4, 16, ratio=3.0, logit_std=2.0): 4}
HARD |= dict.fromkeys(HEADS[:2], 2)
FASTER = 5.0  # times, than Adam


def trials(tiny: bool) -> Iterator[Fit]:
    if tiny:
        yield from contest(Planted(4, 2, 8), 0, budgets=(2000,))
        return
    for problem, contests in (EASY | HARD).items():
        yield from rounds(problem, SEEDS, contests)


def claims(found: list[Fit]) -> list[Claim]:
    rows = []
    easy = {problem.name for problem in EASY}
    for problem, own in by_problem(found).items():
        mine, adam = (best(chosen(own, problem, solver)) for solver in ("ours", "Adam"))
        rows.append(Claim(f"{problem}: ours, part solved", part_solved(mine)))
        if problem in easy:
            faster = ratio(list(zip(mine, adam, strict=False)))  # the seeds that both ran
            rows.append(Claim(f"{problem}: Adam over ours, time to target", faster, ">=", FASTER))
    return [*rows, *compared(found)]


BENCHMARK = Benchmark(
    "Where is Adam as reliable, where not, and how much longer does it take?", trials, claims, Fit, picture
)
