r"""A layer from random examples by sculpting, after Chen and Li: each phase is a pure function in a file of its own.

    examples -> crude -> ov_sum (proxy) -> certificates -> hull -> net -> marquardt in the hull -> faithful layer
                                                                             -> polish in the full space -> layer

`crude`, `proxy` and the net follow the paper's phases; every certificate, constant and threshold is ours.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn._status import Status, Stop
from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer
from attnlearn.learners._base import AbstractLearner, Learned
from attnlearn.learners._blas import one_blas_thread
from attnlearn.learners.sculpting import crude, net, verdicts
from attnlearn.learners.sculpting.certificates import edges, error_of_sum, output_metric, slab
from attnlearn.learners.sculpting.hull import POOL, Carving, Hull, carve, count_heads, gaps
from attnlearn.learners.sculpting.marquardt import Fitted, Start, marquardt
from attnlearn.learners.sculpting.net import Grid
from attnlearn.learners.sculpting.ov_sum import Refinement, learn_sum, tighten
from attnlearn.learners.sculpting.passes import Certificates, Passes
from attnlearn.learners.sculpting.polish import LeastSquares
from attnlearn.learners.sculpting.proxy import Body
from attnlearn.learners.sculpting.rows import Rows, relative_error
from attnlearn.learners.sculpting.sharpen import Sharpening, sharpen
from attnlearn.learners.sculpting.tokens import DISTRIBUTIONS
from attnlearn.records import Cost, Phase

HULL_STEPS = 15
ERROR_EXAMPLES = 20_000  # from which the error of the sum is read
SHARP = 1e-3  # error at which sharpening ends
NARROW = 0.1  # logits
ROUNDINGS = 10  # of a label's precision, that an exact fit may miss it by
JUDGED = "an error on rows that the fits do not read, which chose among candidates"
SHARPENED = "the sharpened layer"
ROUNDING = 1e-10  # of a label, below which it has no noise
FAITHFUL, EXACT, NOISY = 0.1, 1e-9, 1.2  # errors accepted in the hull and after a polish; times the noise


KINDS = {"refinement": Refinement, "body": Body, "carving": Carving, "grid": Grid}


class Sculpting(AbstractLearner[Examples]):
    r"""Recovers every $(\Theta_i, W_i)$ from examples with random tokens: sculpts the affine hull of the $\Theta_i$.

    **Fields:**

    - `heads`: number of heads; `None`: the singular gap of the hull tells.
    - `distribution`: of the tokens, "cube" (entries -1 and 1) or "gaussian" (standard normal; without slices and
        without the rigorous slabs, which need the cube).
    - `sharpening`: certificates of every head for itself, from the layer in the hull, as a further phase; `None`: none,
        as in the paper.
    - `polish`: the last fit in the full space, an object; `None`: the faithful route, which ends in the hull.
    - `noise`: standard deviation of the labels' additive noise; `None`: measured on equal queries within an example,
        where there are any, else taken for 0.
    - `tolerance`: relative error on held-out rows that is accepted; `None`: .1 in the hull, 1e-9 after a polish, and
        1.2 times the noise where that is more.
    - `held_out`: rows for the choice among candidates, which no fit reads.
    - `refinement`, `body`, `carving`, `grid`: constants of the phases.
    - `chunk`: sequences in a chunk of a pass over all examples; `None`: by their size.
    - `executor`: any `concurrent.futures` executor, whose workers then make these passes.

    **Guarantee.** None in advance. Assumed: tokens of the named distribution, no query biases, no offset, no mask, a
    sum of OV circuits of full row rank, attention that is often decided by one or two tokens, and examples in random
    order. `LEARNED` means that rows which the fits of the last phases do not read, but which choose among candidates,
    are explained to `tolerance`; `result.phases` says what every phase was given, gave and certified,
    with the faithful error beside the polished one. On the cube, with one head and the exact sum, the slabs of
    `certificates.slab` are certain.

    **Cost:** passes over $N$ examples of $O(Nk^3d)$ operations, $O(Td^4)$ for a hull of $T$ functionals, and
    $O(Ro(md^2)^2)$ for a step of the last fit on $R$ rows. Memory: a chunk, 180,000 rows, and $Td^2$ numbers of the
    functionals, with some $20$ times as many while they are chosen. [@chen2025]
    """

    heads: int | None = None
    distribution: str = "cube"
    sharpening: Sharpening | None = None
    polish: LeastSquares | None = LeastSquares()
    noise: float | None = None
    tolerance: float | None = None
    held_out: int = 2000
    refinement: Refinement = Refinement()
    body: Body = Body()
    carving: Carving = Carving()
    grid: Grid = Grid()
    chunk: int | None = None
    executor: Executor | None = None

    query_bias = False  # of the layers that it looks for
    offset = False

    def __check_init__(self):
        for name in ("heads", "chunk", "held_out"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name, kind in KINDS.items():
            if not isinstance(value := getattr(self, name), kind):
                raise TypeError(f"{name} must be a {kind.__name__} object, got {value!r}")
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution must be one of {', '.join(DISTRIBUTIONS)}, got {self.distribution!r}")
        if not isinstance(self.polish, LeastSquares | None):
            raise TypeError(f"polish must be a LeastSquares object or None (stay in the hull), got {self.polish!r}")
        if not isinstance(self.sharpening, Sharpening | None):
            raise TypeError(f"sharpening must be a Sharpening object or None, got {self.sharpening!r}")
        if not isinstance(self.executor, Executor | None) and not hasattr(self.executor, "submit"):
            raise TypeError(f"executor must be a concurrent.futures executor, got {self.executor!r}")
        for name in ("noise", "tolerance"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float | np.number) and 0 <= value < np.inf):
                raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")

    def learn(self, source: Examples, key: np.random.Generator) -> Learned:
        """Returns the layer behind the examples, or the best so far with the status that says what stopped it.

        **Raises:** `ValueError` for tokens that are not of the distribution, sequences of one token or of different
        lengths, and outputs of less than all tokens.
        """
        _, k, _ = source.X.shape
        if source.mask is not None or source.rows != "all":
            raise ValueError(
                f"Sculpting reads the output of every token of sequences of one length, got rows={source.rows!r}"
                f"{' with a mask' if source.mask is not None else ''}: al.learners.VariableProjection takes these"
            )
        if k < 2:
            raise ValueError("Sequences of one token show no attention: wanted are two tokens or more")
        with one_blas_thread():
            return _Run(self, source, key).outcome()


class Candidate(NamedTuple):
    """A layer that is not polished yet: where it comes from, and its error on held-out rows."""

    name: str
    error: float
    fitted: Fitted


class _Run:
    """One call of `learn`: what every phase gave, so that an interruption loses nothing."""

    def __init__(self, learner: Sculpting, examples: Examples, key: np.random.Generator):
        self.learner, self.examples, self.key = learner, examples, key
        self.tokens = DISTRIBUTIONS[learner.distribution]
        self.passes = Passes(examples, self.tokens, learner.chunk, learner.executor)
        self.phases: list[Phase] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.layer: AttentionLayer | None = None
        self.doubt: Stop | None = None  # the first verdict of the faithful route that was not good
        self.suspicion: Stop | None = None  # the sum looked singular at first: the reason for whatever fails later
        self.owed: str | None = None  # what went beyond the hull, in words
        self.rms, self.noise = 1.0, 0.0  # of a label, and of its noise
        self.start = time.perf_counter()

    def outcome(self) -> Learned:
        try:
            status, words = self._learn()
        except Stop as stop:
            status, words = stop.status, stop.evidence
        except KeyboardInterrupt:
            last = f"in the phase {self.phases[-1].name!r}" if self.phases else "before the first phase"
            status, words = Status.INTERRUPTED, f"Stopped {last}; what the phases before gave is kept."
        given = self.examples
        cost = Cost(len(given), given.tokens, given.scalars, time.perf_counter() - self.start)
        return Learned(self.layer, status, cost, tuple(self.phases), words, self.arrays)

    def _learn(self) -> tuple[Status, str]:
        heads, polish = self.learner.heads, self.learner.polish
        verdicts.refuse_scarce(self.examples, heads or 1, self.learner.grid.rows, self.learner.held_out)
        found = None
        try:
            found = self._hull(self._sum())
            heads = len(found.directions) + 1
            verdicts.refuse_scarce(self.examples, heads, self.learner.grid.rows, self.learner.held_out)
            self._doubt(verdicts.of_gap(found, self.learner.carving))
        except Stop as stop:
            if stop.status is Status.TOO_FEW_EXAMPLES:
                raise
            self._doubt(stop)
        if self.doubt is not None and (heads is None or (polish is None and found is None)):
            hint = f" {verdicts.GIVE_HEADS}" if heads is None and polish is not None else ""
            raise Stop(self.doubt.status, self.doubt.evidence + hint)
        assert heads is not None  # given, or counted by a hull
        rows = self._rows()
        candidates = [] if found is None else self._faithful(found, heads, rows)
        if self.learner.sharpening is not None and candidates:
            candidates = [*self._sharpened(self.learner.sharpening, candidates[0], rows), *candidates]
        error = candidates[0].error if candidates else np.inf
        if polish is not None:
            error = self._polished(polish, candidates, heads, rows)
        return self._verdict(error)

    def _verdict(self, error: float) -> tuple[Status, str]:
        target = self._target()
        words = f"Relative error {error:.2g} on {self.learner.held_out} held-out rows, where {target:.2g} is accepted."
        if self.doubt is not None and self.owed is None:
            return self.doubt.status, f"{self.doubt.evidence} {words}"
        if error <= target:
            beyond = [self.owed] if self.owed else []
            return Status.LEARNED, " ".join([words, *beyond, *([self.doubt.evidence] if self.doubt else [])])
        further = "" if self.learner.polish is None or self.noise else f" {verdicts.NOISE_UNKNOWN}"
        return Status.NOT_VALIDATED, f"{words} {self.doubt.evidence if self.doubt else ''}".rstrip() + further

    def _doubt(self, stop: Stop | None) -> None:
        if stop is not None and self.suspicion is not None:
            also = "" if stop is self.suspicion else f" {stop.evidence}"
            stop = Stop(self.suspicion.status, self.suspicion.evidence + also)
        self.doubt = self.doubt or stop

    @contextmanager
    def _phase(self, name: str, given: str) -> Iterator[dict[str, Any]]:
        """Times a phase; what it puts into the figures is kept, also where it stops."""
        figures: dict[str, Any] = {"in": given, "out": "nothing: it stopped here", "certified": "nothing"}
        start = time.perf_counter()
        try:
            yield figures
        finally:
            self.phases.append(Phase(name, figures, seconds=time.perf_counter() - start))

    def _sum(self) -> Float[np.ndarray, "d o"]:
        """Phases (i) and (iii)."""
        n, k, d = self.examples.X.shape
        with self._phase("crude", f"{n} examples of {k} tokens") as figures:
            sums = self.passes.moments()
            starts = crude.starts(sums, self.tokens.sliced)
            self.rms = float(np.sqrt(sums.squares / (sums.rows * self.examples.width_out)))
            noise = crude.repeat_noise(sums) if self.learner.noise is None else self.learner.noise
            self.noise = 0.0 if noise is None or noise < ROUNDING * self.rms else noise
            names = ["paper"] if k == 2 and self.tokens.sliced else [one for one in starts if one != "paper"]
            figures |= {"out": f"estimates of the sum: {', '.join(starts)}"}
            figures |= {"norms": {one: float(np.linalg.norm(W)) for one, W in starts.items()}, "noise": noise}
            self.arrays |= {f"crude_{one}": W for one, W in starts.items()} | {"ov_sum": starts[names[-1]]}
            self.suspicion = verdicts.singular(self.arrays["ov_sum"], self.rms * float(np.sqrt(d / sums.rows)))
            if self.suspicion is not None and self.examples.width_out < d:
                raise self.suspicion
        refinement = self.learner.refinement
        with self._phase("ov_sum", f"{', '.join(names)}; {min(n, refinement.rows // k)} examples") as figures:
            sample = self.passes.sample(refinement.rows // k)
            how = refinement, self.learner.body
            best = learn_sum(sample, [starts[one] for one in names], how, self.key, self.noise)
            figures |= {"out": "the sum of the OV circuits", "score": best.score}
            flat = verdicts.flat(best.score, refinement)
            if flat is not None:
                raise flat
            self.arrays["ov_sum"] = tighten(self.passes.sample(3 * refinement.rows // k), best.ov_sum, refinement)
            figures["condition"] = float(np.linalg.cond(self.arrays["ov_sum"]))
            singular = verdicts.singular(self.arrays["ov_sum"], 0.0)
            if singular is not None:
                raise singular
        return self.arrays["ov_sum"]

    def _hull(self, ov_sum: Float[np.ndarray, "d o"]) -> Hull:
        """Phases (ii) and (iv)."""
        inverse, d, carving = np.linalg.pinv(ov_sum), len(ov_sum), self.learner.carving
        with self._phase("certificates", "effective tokens of all rows") as figures:
            sample, metric = self.passes.sample(ERROR_EXAMPLES), output_metric(ov_sum)
            error = error_of_sum(edges(sample.Y @ inverse, sample.X, self.tokens, metric))
            most = POOL * d * d * max(*carving.one_head, *carving.more_heads)
            found = self.passes.certificates(inverse, metric, error, most)
            figures |= {"out": f"{len(found.edges.u)} edges of least slack", "accepted": found.accepted / found.rows}
            figures |= {"error_of_sum": error, "certified": self._slabs(found)}
        with self._phase("hull", f"{len(found.edges.u)} edges") as figures:
            heads = self.learner.heads or count_heads(found.edges, error, carving)
            hull = carve(found.edges, heads, error, carving) if heads else None
            if heads is None or hull is None:
                raise verdicts.too_few(found, heads or 1, carving)
            figures |= {"out": f"a point and {heads - 1} directions", "heads": heads, "gap": hull.gap}
            figures |= {"functionals": hull.functionals, "gaps": gaps(hull).tolist()}
            figures["certified"] = f"the gap is {verdicts.word(hull.gap, carving)}"
        self.arrays |= {"hull_point": hull.point, "hull_directions": hull.directions}
        self.arrays["hull_singular_values"] = hull.singular_values
        return hull

    def _slabs(self, found: Certificates) -> str:
        if not self.tokens.sliced:
            return "nothing: rigorous slabs need the cube"
        low, high = slab(found.edges)
        narrow = int((high - low < NARROW).sum())
        return f"{narrow} slabs narrower than {NARROW}, certain for one head and the exact sum; evidence otherwise"

    def _rows(self) -> tuple[Rows, Rows]:
        """Rows to fit and rows held out, drawn by chance from all."""
        n, k, _ = self.examples.X.shape
        polish, held_out = self.learner.polish, self.learner.held_out
        sharpening = self.learner.sharpening
        wanted = max(self.learner.grid.rows, polish.rows if polish else 0, sharpening.rows if sharpening else 0)
        index = self.key.choice(n * k, min(wanted + held_out, n * k), replace=False)
        which, where = np.unique(index // k, return_inverse=True)
        part = self.examples[which]
        rows = Rows.of(np.asarray(part.inputs.X), part.targets, where * k + index % k)
        return rows.part(slice(held_out, None)), rows.part(slice(0, held_out))

    def _faithful(self, found: Hull, heads: int, rows: tuple[Rows, Rows]) -> list[Candidate]:
        """Phases (v) and (vi) in the hull: candidates by their error on held-out rows."""
        grid, (fit, held_out) = self.learner.grid, rows
        few = fit.part(slice(0, grid.rows))
        with self._phase("net", f"the hull; {len(few.Y)} rows") as figures:
            points = net.points(found, heads, grid, self.key)
            shared = net.gram(few, net.matrices(found, points.c))
            kept = net.search(shared, points, heads, grid)
            figures |= {"out": f"{len(kept)} tuples", "points": len(points.c)}
        with self._phase("faithful", f"{len(kept)} tuples; {len(few.Y)} rows") as figures:
            fits = [marquardt(few, Start(net.matrices(found, c), found.directions), HULL_STEPS) for c in kept]
            judged = [(relative_error(held_out, one.thetas, one.W), one) for one in fits]
            judged.sort(key=lambda pair: pair[0])
            error, best = judged[0]
            self.layer = _layer(best)
            self._doubt(verdicts.of_error(error, self._allowed(FAITHFUL)))
            verdict = JUDGED if self.doubt is None else "nothing: the hull is not reliable"
            figures |= {"out": "a layer with attention matrices in the hull", "residual": best.residual}
            figures |= {"error": error, "steps": best.steps, "certified": verdict, "trusted": self.doubt is None}
        source = "the hull" if self.doubt is None else "an unreliable hull"
        return [Candidate(f"candidate {n + 1} of {source}", *pair) for n, pair in enumerate(judged)]

    def _sharpened(self, settings: Sharpening, faithful: Candidate, rows: tuple[Rows, Rows]) -> list[Candidate]:
        """The layer in the hull with every head certified for itself, where that is better on held-out rows."""
        with self._phase("sharpened", f"the faithful layer; {min(settings.rows, len(rows[0].Y))} rows") as figures:
            found = sharpen(*rows, faithful.fitted.thetas, settings, self._allowed(SHARP))
            figures |= {"out": "a layer in the hull of its own heads", "residual": found.fitted.residual}
            figures |= {"error": found.error, "path": list(found.path)}
            figures["certified"] = "an error on held-out rows, by which it was chosen"
        if found.error >= faithful.error:
            return []
        self.owed, self.layer = verdicts.OWED_TO_SHARPENING, _layer(found.fitted)
        return [Candidate(SHARPENED, found.error, found.fitted)]

    def _polished(self, polish: LeastSquares, known: list[Candidate], heads: int, rows: tuple[Rows, Rows]) -> float:
        """The last fit in the full space; what it started from stands in its figures."""
        starts = [(one.name, one.fitted.thetas) for one in known]
        starts += polish.random(heads, self.examples.width, self.key)
        with self._phase("polished", f"{len(starts)} starts; {len(rows[0].Y)} rows") as figures:
            if not starts:
                raise self.doubt or Stop(Status.NOT_VALIDATED, "The polish has no start: give it restarts.")
            found = polish(*rows, starts, self._target())
            self.layer = _layer(found.fitted)
            if found.start != SHARPENED:
                beyond = self.doubt is not None or found.start.startswith("random")
                self.owed = verdicts.OWED_TO_FIT if beyond else None
            figures |= {"out": "a layer", "start": found.start, "residual": found.fitted.residual}
            figures |= {"error": found.error, "certified": JUDGED}
        return found.error

    def _target(self) -> float:
        """The relative error that is accepted."""
        if self.learner.tolerance is not None:
            return self.learner.tolerance
        return self._allowed(FAITHFUL if self.learner.polish is None else EXACT)

    def _allowed(self, least: float) -> float:
        """`least`, or the noise or the rounding of the labels where these are more."""
        rounding = ROUNDINGS * float(np.finfo(self.examples.dtype).eps)
        return max(least, rounding, NOISY * self.noise / self.rms)


def _layer(fitted: Fitted) -> AttentionLayer:
    m, d, _ = fitted.thetas.shape
    return AttentionLayer(fitted.thetas, fitted.W.reshape(m, d, -1))
