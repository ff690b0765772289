"""What does each phase of sculpting see and give? One problem, phase by phase, each phase called for itself.

This file is the algorithm in the order of the paper; `learners/sculpting/learner.py` adds chunks, statuses and times.
The truth is used for the errors in the table and for nothing else.
"""

import time
from typing import Any

import numpy as np

from attnlearn.data.distributions import Planted
from attnlearn.learners.sculpting import crude, net
from attnlearn.learners.sculpting.certificates import edges, error_of_sum, output_metric
from attnlearn.learners.sculpting.hull import Carving, carve
from attnlearn.learners.sculpting.marquardt import Start, marquardt
from attnlearn.learners.sculpting.net import Grid
from attnlearn.learners.sculpting.ov_sum import Refinement, Sample, learn_sum, tighten
from attnlearn.learners.sculpting.proxy import Body
from attnlearn.learners.sculpting.rows import Rows, relative_error
from attnlearn.learners.sculpting.tokens import Cube, nearest
from attnlearn.records import Study
from attnlearn.studies.sculpted import hull_errors

QUESTION = "What does each phase of sculpting see, and what does it give?"
PROBLEM = Planted(heads=2, width=8, tokens=4, norm=4.0, examples=40_000, seed=1)
SHOWN, CERTIFIED, STEPS = 2000, 400, 12  # examples and certificates in the figure; steps of the last fits


def sculpting_walkthrough(problem: Planted = PROBLEM) -> Study:
    """What each phase of sculpting sees and gives, on one problem of two heads."""
    start, key = time.perf_counter(), np.random.default_rng(0)
    examples = problem.draw()
    X, Y, heads = np.asarray(examples.X), np.asarray(examples.Y), problem.heads
    truth = problem.layer()
    true_sum = np.sum(truth.ov, axis=0)

    starts = crude.starts(crude.moments(X, Y), sliced=True)
    table: list[dict[str, Any]] = [
        {"phase": "crude", "true": true_sum.ravel(), **{name: W.ravel() for name, W in starts.items()}}
    ]

    how = Refinement(), Body()
    most = how[0].rows // problem.tokens
    first = [starts[name] for name in starts if name != "paper"]
    refined = learn_sum(Sample(X[:most], Y[:most]), first, how, key)
    ov_sum = tighten(Sample(X[: 3 * most], Y[: 3 * most]), refined.ov_sum, how[0])
    Z = Y @ np.linalg.pinv(ov_sum)
    before, after = (nearest(part, X[:SHOWN]).residual for part in (Y[:SHOWN] @ np.linalg.pinv(first[0]), Z[:SHOWN]))
    table.append({"phase": "sum", "before": before, "after": after, "refined": ov_sum.ravel()})

    found = edges(Z, X, Cube(), output_metric(ov_sum))
    error = error_of_sum(found)
    best = found.take(np.argsort(found.slack(error))[:CERTIFIED])
    said = np.einsum("nd,mde,ne->mn", best.query, np.asarray(truth.qk), best.u - best.v)
    table.append({"phase": "certificates", "residual": best.residual, "log_odds": best.log_odds, "heads": said})

    hull = carve(found, heads, error, Carving())
    assert hull is not None  # of this problem
    _, angle = hull_errors(hull.point, hull.directions, truth)
    table.append({"phase": "hull", "values": hull.singular_values, "heads": heads, "gap": hull.gap, "angle": angle})

    rows = Rows.of(X, Y, key.choice(len(X) * problem.tokens, 3500, replace=False))
    fit, held_out = rows.part(slice(2000, None)), rows.part(slice(0, 2000))
    points = net.points(hull, heads, Grid(), key)
    shared = net.gram(fit, net.matrices(hull, points.c))
    pairs, cost = net.scored(shared, heads, Grid().beam)
    start_point = net.search(shared, points, heads, Grid())[0]
    table.append(
        {"phase": "net", "c": points.c[pairs][..., 0], "cost": np.sqrt(cost / shared.square), "best": start_point}
    )

    at = net.matrices(hull, start_point)
    for name, directions in (("faithful", hull.directions), ("polished", None)):
        runs = [marquardt(fit, Start(at, directions), steps) for steps in range(STEPS)]
        table.append({"phase": name, "error": [relative_error(held_out, one.thetas, one.W) for one in runs]})
        at = runs[-1].thetas
    answer = (
        f"The gap is {hull.gap:.3g}, the hull {angle:.2g} degrees from the true heads; the faithful layer errs by "
        f"{table[-2]['error'][-1]:.2g} on held-out rows, the polished one by {table[-1]['error'][-1]:.1g}."
    )
    seconds = time.perf_counter() - start
    plain = tuple({name: np.asarray(v).tolist() if name != "phase" else v for name, v in row.items()} for row in table)
    return Study("sculpting-walkthrough", QUESTION, answer, {"problem": str(problem)}, plain, seconds)
