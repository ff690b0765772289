"""A black box that answers sequences of tokens, every question counted.

The oracle alone touches the box. It casts, chunks, counts, keeps to the budget, and turns whatever the box does
wrong into a `Stop` with the status and the figures; what it hands to a learner is finite float64 of one shape.
"""

import itertools
import math
import operator
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from attnlearn._status import Status, Stop
from attnlearn.layers.attention import AttentionLayer
from attnlearn.records import Ledger

# A box sees at most this many sequences and this many token rows at once (one long sequence always goes alone).
CHUNK_SEQUENCES = 64
CHUNK_TOKENS = 2**14

# Answers kept to notice a box that contradicts itself: the first half for good, the rest the most recent ones.
REMEMBERED = 64
REMEMBERED_BYTES = 2**20  # of one question; longer ones are not kept

# Two answers to one question may differ by 10 noise: with Gaussian noise of that standard deviation the difference
# has 1.41 of it, and 7 standard deviations are passed once in 4e11 scalars.
REPEAT_NOISE = 10.0
# ... and by rounding: 1e3 units covers sums over thousands of terms taken in another order in another batch.
REPEAT_ROUNDING = 1e3

EPSILON = {"float64": 2.3e-16, "float32": 1.2e-7}


class QueryOracle:
    r"""A function of token sequences that may be asked, with a ledger and a budget.

    **Arguments:**

    - `fn`: the black box, from a NumPy array (batch, k, width) to (batch, k, d_out). It is called with at most 64
      sequences at a time. A JAX function runs in the precision that the user had set when the oracle was
      made; JAX's default is float32: declare `dtype="float32"` then.
    - `width`: entries of a token.
    - `max_queries`: budget in sequences; `None`: no limit.
    - `dtype`: "float64" or "float32": what questions are cast to before they are asked.
    - `noise`: additive tolerance $\tau$ of one answer, declared by the caller. Equal questions must get answers
      within $10\tau$ plus rounding; rounding of a logit grows with the square of the tokens, and so does the
      allowance: $10^3 \epsilon \max|F| \max(1, \max|x|)^2$.

    **Attributes:** `width`, `max_queries`, `noise`, `epsilon` (relative rounding of `dtype`), `width_out` (`None`
    before the first answer), `name` for people.

    **Raises:** `TypeError`, `ValueError` for wrong use. What the box does wrong is a `Stop`, which learners turn
    into a status.
    """

    def __init__(self, fn: Any, width: Any, max_queries: Any = None, dtype: Any = "float64", noise: Any = 0.0):
        if not callable(fn):
            raise TypeError(f"fn must be a function of an array (batch, k, d), got {type(fn).__name__}")
        self.width = _count("width", width)
        self.max_queries = None if max_queries is None else _count("max_queries", max_queries)
        self.dtype = precision(dtype)
        self.epsilon = EPSILON[self.dtype.name]
        self.noise = float(noise)
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(f"noise must be a number >= 0, got {noise}")
        self.name = "black box"
        self.width_out: int | None = None
        self._fn = fn
        self._x64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
        self._calls, self._token_rows, self._scalars = 0, 0, 0
        self._by_length: Counter[int] = Counter()
        self._by_purpose: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self._answers: dict[tuple[int, bytes], np.ndarray] = {}  # (tokens, bytes of the question) -> answer

    @cached_property
    def truth(self) -> AttentionLayer | None:
        """The hidden layer where it is known; may be set. For judging a finished result: no learner reads it."""
        return None

    @cached_property
    def activations(self) -> Sequence[np.ndarray] | np.ndarray | None:
        """Real sequences for a certificate, arrays (k_i, width), where there are any; may be set."""
        return None

    @cached_property
    def tokens(self) -> Sequence[Sequence[str]] | None:
        """The words of `activations`, k_i for each sequence; may be set."""
        return None

    @property
    def ledger(self) -> Ledger:
        """What was asked up to now; failed calls are counted as asked."""
        lengths = dict(sorted(self._by_length.items()))
        return Ledger(self._calls, self._token_rows, self._scalars, lengths, dict(self._by_purpose))

    @property
    def remaining(self) -> int | None:
        """Sequences that may still be asked for a purpose without a reservation; `None` without a budget."""
        return self._left(None)

    def reserve(self, purpose: str, n: int) -> None:
        """Keeps `n` of the remaining sequences for `purpose`, fewer where fewer are left; replaces an earlier one."""
        left = self._left(purpose)
        self._reserved[purpose] = n if left is None else max(0, min(n, left))

    def release(self, purpose: str) -> None:
        """Gives back what was reserved for `purpose`."""
        self._reserved.pop(purpose, None)

    def ask(self, X: Any, purpose: str = "learning") -> Float[np.ndarray, "batch k width_out"]:
        """Answers of the box to the sequences `X` (batch, k, width), as float64.

        Counted chunk by chunk. Where the budget ends inside `X`, the sequences that fit are asked and counted.

        **Raises:** `ValueError` for a question of the wrong shape or with NaN; `Stop` with `BUDGET_EXHAUSTED`,
        `ORACLE_FAILED` or `ORACLE_INCONSISTENT`.
        """
        X = self._question(X)
        left = self._left(purpose)
        fits = len(X) if left is None else min(len(X), left)
        size = max(1, min(CHUNK_SEQUENCES, CHUNK_TOKENS // X.shape[1]))
        answers = [self._chunk(X[start : min(start + size, fits)], purpose) for start in range(0, fits, size)]
        if fits < len(X):
            kept = sum(self._reserved.values()) - self._reserved[purpose]
            raise Stop(
                Status.BUDGET_EXHAUSTED,
                f"{self._calls} of {self.max_queries} sequences asked, {kept} kept for another purpose; "
                f"{len(X) - fits} of the last {len(X)} could not be asked.",
            )
        return np.concatenate(answers)

    def check_repeat(self, purpose: str = "learning") -> None:
        """Asks a remembered question once more: the first of those with the most tokens. One call.

        **Raises:** `Stop` with `ORACLE_INCONSISTENT` where the answers differ. Before any question: does nothing.
        """
        if self._answers:
            tokens, question = max(self._answers, key=lambda known: known[0])
            self.ask(np.frombuffer(question, self.dtype).reshape(1, tokens, self.width), purpose)

    def _left(self, purpose: str | None) -> int | None:
        if self.max_queries is None:
            return None
        others = sum(n for name, n in self._reserved.items() if name != purpose)
        return max(0, self.max_queries - self._calls - others)

    def _question(self, X: Any) -> np.ndarray:
        X = np.asarray(X)
        if X.ndim != 3 or X.shape[2] != self.width or 0 in X.shape:
            raise ValueError(f"X must have shape (batch, k, {self.width}) with batch, k >= 1, got {X.shape}")
        with np.errstate(over="ignore"):
            X = X.astype(self.dtype)
        if not np.isfinite(X).all():
            raise ValueError(f"X must be finite in {self.dtype.name}: it holds NaN, infinity or a number too large")
        return X

    def _chunk(self, X: np.ndarray, purpose: str) -> np.ndarray:
        n, k, _ = X.shape
        self._calls += n
        self._token_rows += n * k
        self._by_length[k] += n
        self._by_purpose[purpose] += n
        self._reserved[purpose] = max(0, self._reserved[purpose] - n)
        try:
            with jax.enable_x64(self._x64):
                answer = np.array(self._fn(X.copy()))
        except Exception as error:
            raise Stop(Status.ORACLE_FAILED, f"It raised {type(error).__name__}: {error}") from error
        answer = self._checked(answer, X)
        self._scalars += answer.size
        for question, value in zip(X, answer, strict=True):
            self._compare(question, value)
        return answer

    def _checked(self, answer: np.ndarray, X: np.ndarray) -> np.ndarray:
        n, k, _ = X.shape
        width_out = self.width_out or (answer.shape[-1] if answer.ndim else 0)
        if answer.shape != (n, k, width_out) or not width_out:
            wanted = f"({n}, {k}, {self.width_out or 'd_out'})"
            raise Stop(Status.ORACLE_FAILED, f"It answered with shape {answer.shape} where {wanted} was wanted.")
        if answer.dtype.kind not in "biuf" and answer.dtype.name != "bfloat16":
            raise Stop(Status.ORACLE_FAILED, f"It answered with {answer.dtype} where real numbers were wanted.")
        answer = answer.astype(np.float64)
        bad = answer.size - np.count_nonzero(np.isfinite(answer))
        if bad:
            asked = f"largest entry asked: {np.abs(X).max():.3g}"
            raise Stop(Status.ORACLE_FAILED, f"It answered {bad} of {answer.size} numbers with NaN or inf ({asked}).")
        self.width_out = width_out
        return answer

    def _compare(self, question: np.ndarray, answer: np.ndarray) -> None:
        if question.nbytes > REMEMBERED_BYTES:
            return
        key = (len(question), question.tobytes())
        known = self._answers.get(key)
        if known is None:
            if len(self._answers) >= REMEMBERED:
                del self._answers[next(itertools.islice(self._answers, REMEMBERED // 2, None))]
            self._answers[key] = answer.copy()
            return
        size = np.abs(known).max() * max(1.0, float(np.abs(question).max())) ** 2
        allowed = REPEAT_NOISE * self.noise + REPEAT_ROUNDING * self.epsilon * size
        apart = np.abs(answer - known).max()
        if apart > allowed:
            raise Stop(
                Status.ORACLE_INCONSISTENT,
                f"The same {len(question)} tokens got answers {apart:.3g} apart where {allowed:.3g} is allowed "
                f"(declared noise {self.noise:.3g}).",
            )


def _count(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def precision(dtype: Any) -> np.dtype:
    """The NumPy type of "float64" or "float32"; `ValueError` for every other."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in EPSILON:
        raise ValueError(f"dtype must be 'float64' or 'float32', got {dtype!r}")
    return found
