r"""A layer from inputs and outputs alone, by variable projection.

    examples -> frame (whitened tokens) -> search (runs, replaced heads, growth) -> polish -> layer
                                           | for each number of heads, for each slots, where they are not given

The OV circuits are eliminated exactly, the QK circuits found by Levenberg–Marquardt, matrix-free. This file decides
what is fitted and turns what came of it into a status.
"""

import time
from concurrent.futures import Executor

import numpy as np

from attnlearn._status import Status, Stop
from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.slots import Causal, Erf, Linear, ReLU, Sigmoid, Slots, Softmax
from attnlearn.learners._base import AbstractLearner, Learned
from attnlearn.learners.least_squares import evidence
from attnlearn.learners.least_squares.fitting import DECISIVE, GLANCE, SKETCH, Fitted, Fitting, Work, best
from attnlearn.learners.least_squares.frame import Model
from attnlearn.learners.least_squares.search import Effort
from attnlearn.records import Cost, Phase

AUTO = tuple(Slots(n, m) for n in (Softmax(), Linear(), ReLU(), Sigmoid(), Erf()) for m in (None, Causal()))
SCARCE = 1.5  # observed numbers an unknown, below which a perfect fit need not be the layer
BYTES_IN_MEMORY = 2**31  # of what a pass over all examples keeps; above it they are read in chunks
BYTES_IN_CHUNK = 2**27


class VariableProjection(AbstractLearner[Examples]):
    r"""Recovers every $(\Theta_i, \beta_i, W_i)$ and $c$ from examples, by least squares.

    **Fields:**

    - `heads`: number of heads; `None`: 1, 2, ... are fitted and the criterion chooses.
    - `head_dim`: largest rank of the circuits, with the query bias in the QK circuit; `None`: full circuits.
    - `slots`: normaliser and mask; a tuple of candidates, or `"auto"` for every normaliser with and without a causal
        mask (a window is a candidate when you name its width). All are fitted, and the evidence is in `phases`.
    - `query_bias`, `offset`: whether the layer has them.
    - `noise`: standard deviation of the labels' additive noise; 0: there is none; `None`: not known.
    - `restarts`, `resets`, `candidates`: the effort of the search; `None`: by the size of the problem, see `Effort`.
    - `whiten`: learn in coordinates in which tokens have second moment one.
    - `chunk`: sequences in a chunk; memory is then that of a chunk. `None`: all at once, or chunks where 2 GiB would
        not hold them.
    - `executor`: any `concurrent.futures` executor, whose workers then make the sums over chunks.
    - `devices`: spread the sequences over so many JAX devices.

    **Guarantee.** None in advance: the objective has local minima. `LEARNED` means that the outputs are explained to
    rounding, or to the noise, or that two independent starts ended at one fit; `certify` says what follows from that.

    **Cost:** $12 N m d^2 + 8 N m d k$ operations for one iteration of conjugate gradients over $N$ rows; a run takes
    100 to 500 of them. Memory: about $N m (3k + 3d)$ numbers, or those of a chunk. [@golub1973] [@kaufman1975]
    """

    heads: int | None = None
    head_dim: int | None = None
    slots: Slots | tuple[Slots, ...] | str = Slots()
    query_bias: bool = True
    offset: bool = True
    noise: float | None = None
    restarts: int | None = None
    resets: int = 8
    candidates: int | None = None
    whiten: bool = True
    chunk: int | None = None
    executor: Executor | None = None
    devices: int = 1

    def __check_init__(self):
        for name in ("heads", "head_dim", "restarts", "resets", "candidates", "chunk", "devices"):
            value, least = getattr(self, name), int(name != "resets")
            if value is not None and (not isinstance(value, int | np.integer) or value < least):
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.noise is not None and not 0 <= self.noise < np.inf:
            raise ValueError(f"noise must be a standard deviation, at least 0, got {self.noise!r}; None: not known")
        if not self.slots or (isinstance(self.slots, str) and self.slots != "auto"):
            raise ValueError(f"slots must be Slots, a tuple of them, or 'auto', got {self.slots!r}")
        if self.devices != 1 and (self.chunk is not None or self.executor is not None):
            raise ValueError(
                "devices hold all sequences at once, chunk and executor take them in turn: give one of them"
            )

    def learn(self, source: Examples, key: np.random.Generator) -> Learned:
        """Returns the layer behind the examples, or the best so far with the status that says what is missing."""
        return _Run(self, source, key).outcome()


class _Run:
    """One call of `learn`: what was fitted, so that an interruption loses nothing."""

    def __init__(self, learner: VariableProjection, examples: Examples, key: np.random.Generator):
        self.learner, self.examples, self.key = learner, examples, key
        self.fittings: list[Fitting] = []
        self.phases: list[Phase] = []
        self.better = ""  # what another number of heads came to, where it is decisively better
        self.start = time.perf_counter()

    def outcome(self) -> Learned:
        try:
            self._refuse_degenerate()
            fitting, fitted = self._fitted()
            status, words = self._verdict(fitting, fitted)
            return self._learned(fitting.layer(fitted.fit), status, words)
        except Stop as stop:
            return self._learned(None, stop.status, stop.evidence)
        except KeyboardInterrupt:
            return self._interrupted()

    def _refuse_degenerate(self) -> None:
        examples = self.examples
        if examples.constant:
            raise Stop(Status.OV_DEGENERATE, "All outputs are equal: any layer without OV circuits explains them.")
        longest = examples.X.shape[1] if examples.mask is None else int(examples.mask.sum(axis=1).max())
        if longest == 1:
            raise Stop(
                Status.NOT_IDENTIFIABLE,
                "Every sequence has one token, so none is weighed against another; with weights that sum to one, only "
                "the sum of the OV circuits is seen. Give sequences of two tokens or more.",
            )

    def _fitted(self) -> tuple[Fitting, Fitted]:
        learner = self.learner
        given = AUTO if isinstance(learner.slots, str) else learner.slots
        candidates = (given,) if isinstance(given, Slots) else given
        found: list[tuple[Fitting, Fitted]] = []
        for slots in candidates:
            fitting = self._fitting(slots, hurried=len(candidates) > 1)
            found.append((fitting, self._at_heads(fitting)))
        if len(candidates) > 1:
            self._compare(found)
        winner = best([fitted for _, fitted in found])
        fitting = next(one for one, fitted in found if fitted is winner)
        if not winner.settled and len(candidates) > 1:  # the hurry is over
            fitting = self._fitting(winner.model.slots, hurried=False)
            winner = fitting.at(winner.search.heads)
        if winner.settled:
            winner = fitting.pruned(winner)
        winner = self._with_another_head(fitting, winner)
        self._note(fitting, winner)
        return fitting, winner

    def _fitting(self, slots: Slots, hurried: bool) -> Fitting:
        learner = self.learner
        model = Model(slots, learner.query_bias, learner.offset, learner.head_dim)
        effort = GLANCE if hurried else Effort(learner.restarts, learner.resets, learner.candidates)
        work = Work(self._chunk(), learner.executor, learner.devices, learner.whiten)
        self.fittings.append(Fitting(self.examples, model, learner.noise, effort, work, self.key))
        self._refuse_scarce(self.fittings[-1])
        return self.fittings[-1]

    def _chunk(self) -> int | None:
        learner, (n, k, d) = self.learner, self.examples.X.shape
        rows = k if self.examples.rows != "last" else 1
        sequence = 8 * rows * (learner.heads or 4) * 3 * (k + d)
        if learner.chunk is not None or learner.devices > 1:
            return learner.chunk
        if learner.executor is None and n * sequence < BYTES_IN_MEMORY:
            return None
        return max(1, min(n, BYTES_IN_CHUNK // sequence))

    def _refuse_scarce(self, fitting: Fitting) -> None:
        heads = self.learner.heads or 1
        observed, unknown = fitting.problem.scalars, fitting.unknowns(heads)
        if observed < unknown:
            n = len(self.examples)
            wanted = -(-unknown * n // observed)
            raise Stop(
                Status.TOO_FEW_EXAMPLES,
                f"{n} examples hold {observed} numbers and {heads} heads have {unknown} unknowns: at least {wanted} "
                f"examples are needed, and {3 * wanted} are comfortable. A head_dim lowers the number of unknowns.",
            )

    def _at_heads(self, fitting: Fitting) -> Fitted:
        if self.learner.heads is not None:
            return fitting.at(self.learner.heads)
        found = fitting.choose_heads()
        table = [
            {"heads": one.search.heads, "loss": one.fit.loss, "criterion": one.criterion, "unknowns": one.counts[1]}
            for one in found
        ]
        name = f"heads ({_name(fitting.model.slots)})" if len(self.fittings) > 1 else "heads"
        self.phases.append(Phase(name, {"table": table, "chosen": best(found).search.heads}))
        return best(found)

    def _compare(self, found: list[tuple[Fitting, Fitted]]) -> None:
        losses = np.array([fitted.fit.loss for _, fitted in found])
        observed, floor = found[0][1].counts[0], found[0][1].floor
        ratios = evidence.log_likelihood_ratios(losses, observed, floor)
        table = [
            {
                "slots": _name(fitted.model.slots),
                "heads": fitted.search.heads,
                "relative_error": float(np.sqrt(fitted.fit.loss)),
                "log_likelihood_ratio": float(ratio),
                "criterion": fitted.criterion,
                "settled": fitted.settled,
            }
            for (_, fitted), ratio in zip(found, ratios, strict=True)
        ]
        self.phases.append(Phase("slots", {"table": table}))

    def _verdict(self, fitting: Fitting, fitted: Fitted) -> tuple[Status, str]:
        observed, unknown = fitted.counts
        figures = f"Relative residual {np.sqrt(fitted.fit.loss):.2g} after {self._count()} runs."
        if observed < SCARCE * unknown:
            figures += (
                f" There are only {observed / unknown:.2f} observed numbers for each unknown: "
                "a perfect fit need not be the layer; 3 or more are comfortable."
            )
        if self.examples.duplicates:
            figures += f" {self.examples.duplicates} sequences repeat earlier ones and add no information."
        announced = self.learner.heads
        if announced is not None and fitted.search.heads < announced and fitted.settled:
            figures += f" {announced} heads were announced, {fitted.search.heads} explain the outputs as well."
        clean = fitted.fit.loss <= fitted.floor
        if self.better:
            return Status.WRONG_HEADS, f"{figures} {self.better}"
        if fitted.settled:
            return Status.LEARNED, figures + ("" if clean or self.learner.noise else self._noise_words(fitting, fitted))
        if self.learner.noise is not None:
            misfit = np.sqrt(fitted.fit.loss * fitting.problem.mean_square / max(1 - unknown / observed, 1e-3))
            figures += f" That is a misfit of {misfit:.2g}, against a noise of {self.learner.noise:.2g}."
        status = Status.NO_AGREEMENT if self.learner.noise is None else Status.STALLED
        return status, figures + " Either no layer of this kind gives these outputs, or more examples are needed."

    def _noise_words(self, fitting: Fitting, fitted: Fitted) -> str:
        observed, unknown = fitted.counts
        noise = np.sqrt(fitted.fit.loss * fitting.problem.mean_square * observed / max(observed - unknown, 1))
        return f" Independent starts agree; if what is left is noise, its standard deviation is {noise:.2g}."

    def _with_another_head(self, fitting: Fitting, fitted: Fitted) -> Fitted:
        """Tries one head more than announced: a search with a head to spare also finds what one without it missed.

        Where that is decisively better and comes down to the announced number, it is the answer; else it is told.
        """
        heads = fitted.search.heads + 1
        explained = fitted.fit.loss <= fitted.floor or (self.learner.noise and fitted.search.reached)
        scarce = fitting.unknowns(heads) * SCARCE > fitting.problem.scalars
        if self.learner.heads is None or explained or scarce:
            return fitted
        other = fitting.at(heads, fitted.fit, SKETCH)
        if other.criterion > fitted.criterion - DECISIVE or (self.learner.noise is not None and not other.settled):
            return fitted
        other = fitting.pruned(other)
        if other.search.heads <= self.learner.heads:
            return other
        self.better = (
            f"{other.search.heads} heads leave {np.sqrt(other.fit.loss):.2g}: give heads={other.search.heads}, "
            "or leave heads out."
        )
        return fitted

    def _count(self) -> int:
        return sum(len(search.runs) for fitting in self.fittings for search in fitting.tried)

    def _note(self, fitting: Fitting, fitted: Fitted) -> None:
        observed, unknown = fitted.counts
        figures = {
            "observed": observed,
            "unknowns": unknown,
            "ratio": observed / unknown,
            "token_directions": list(fitting.problem.width[:2]),
            "loss": fitted.fit.loss,
            "heads": fitted.search.heads,
        }
        self.phases.append(Phase("fit", figures))

    def _learned(self, layer: AttentionLayer | None, status: Status, words: str) -> Learned:
        runs = [run for fitting in self.fittings for search in fitting.tried for run in search.runs]
        totals = {name: sum(run[name] for run in runs) for name in ("steps", "cg_iterations")}
        search = Phase("search", {"runs": runs, **totals}, seconds=time.perf_counter() - self.start)
        cost = Cost(len(self.examples), self.examples.tokens, self.examples.scalars, search.seconds)
        return Learned(layer, status, cost, (search, *self.phases), words)

    def _interrupted(self) -> Learned:
        """The best fit of all that was tried."""
        fits = [(search.best, fitting) for fitting in self.fittings for search in fitting.tried if search.best]
        if not fits:
            return self._learned(None, Status.INTERRUPTED, "Stopped before the first run had ended.")
        fit, fitting = min(fits, key=lambda one: one[0].loss)
        words = f"Stopped after {self._count()} runs, at a relative residual of {np.sqrt(fit.loss):.2g}."
        return self._learned(fitting.layer(fit), Status.INTERRUPTED, words)


def _name(slots: Slots) -> str:
    mask = "" if slots.mask is None else f", {slots.mask}"
    return f"{type(slots.normaliser).__name__}{mask}"
