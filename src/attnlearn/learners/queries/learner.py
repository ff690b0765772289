r"""A multi-head attention layer, copied from questions to a black box.

    affine part -> atoms (hard attention) -> directions -> isolation (OV) -> read-out (QK) -> polish -> check
                \-> circle -> mirrors ------------------------------------/

The lower way is taken when some head does not show as an atom, or when the layer of the upper way fails its check.
Every stage is a function of the box and of what the stages before it found. This file joins them, keeps their
figures and turns a `Stop` into a status.
"""

import numpy as np

from attnlearn._status import Status, Stop
from attnlearn.data.queries import QueryOracle
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.slots import Causal, Slots, Softmax
from attnlearn.learners._base import AbstractLearner, Learned
from attnlearn.learners.queries import design
from attnlearn.learners.queries.affine import learn_affine
from attnlearn.learners.queries.atoms import learn_atoms
from attnlearn.learners.queries.circle import learn_jumps
from attnlearn.learners.queries.directions import learn_directions
from attnlearn.learners.queries.isolation import learn_values
from attnlearn.learners.queries.journal import Journal
from attnlearn.learners.queries.mirrors import resolve
from attnlearn.learners.queries.polish import PolishOptions, polish
from attnlearn.learners.queries.probing import Affine, Box, Values, largest
from attnlearn.learners.queries.readout import Blocks, Circuits, Reader, Scales, best_of, block_sizes, learn_circuits
from attnlearn.learners.queries.soft_atoms import learn_soft_atoms

POLISH_TOKENS = 20
POLISH_LOGITS_NOISY = 3.0  # additive noise weighs less on longer tokens; float32 rounding does not
CHECK_SEQUENCES, CHECK_TOKENS, CHECK_RTOL = 4, 10, 1e-6
PATIENT = PolishOptions(max_cg=1000, least_progress=1e-6, products=np.float64)
ROUGH = 1e-10  # precision of the OV circuits beyond which an exact box is asked for a polish too
SECOND_WAY = {  # what the circle may cure
    Status.HEADS_UNRESOLVED,
    Status.HEADS_NEARLY_EQUAL,
    Status.ISOLATION_FAILED,
    Status.OV_SUM_MISMATCH,
    Status.READOUT_ILL_CONDITIONED,
}


class MultiHeadQueries(AbstractLearner[QueryOracle]):
    r"""Recovers every $(\Theta_i, \beta_i, W_i)$ and $c$ of a softmax layer from chosen questions.

    **Fields:**

    - `heads`: expected number of heads. Only compared with what is found: heads that compute the same merge.
    - `head_dim`: largest rank of a circuit; `None`: found from the answers.
    - `slots`: normaliser and mask; `None`: softmax, and the mask is found.
    - `scale`: typical size of a token entry, in the units of the box.
    - `amplitude`: how many times longer tokens may become where length lifts the answer above additive noise.
    - `logit_range`: largest logit aimed at when weights are read; several values: the best for each head is kept.
    - `fill`: part of the output numbers used for unknown weights; smaller is better conditioned and costs questions.
    - `oversampling`: extra columns and rows of the sketches, by which ranks are seen to end.
    - `economy`: fewer probes of the directions and of the sketches; `head_dim` must be given.
    - `bounded`: the box bounds the length of its tokens: atoms without saturation, by derivatives.
    - `polish`: Gauss-Newton on fresh questions; `None`: when the box is in float32 or noisy, or heads were so close
        that their OV circuits are known roughly.

    **Guarantee.** In exact arithmetic, with generic probes, the output equals the canonical form of the hidden layer
    if its heads have pairwise different $[\Theta_i; \beta_i]$ and their OV circuits have independent row spaces
    inside the read-out blocks; nothing is assumed about a distribution. What fails ends in a status. Proofs:
    `docs/theory.md`. In floating point the answer is checked on fresh questions before it is returned.

    **Cost:** $d + 1$ + about 150 + $d + 25$ + about 50 sequences, and $\lceil (d+1)/q \rceil \lceil (r+4)/w \rceil +
    \lceil (r+8)/q \rceil \lceil d/w \rceil$ for the QK circuits with $q + w \approx 0.6 \min(d_{out}/m, r)$.
    """

    heads: int | None = None
    head_dim: int | None = None
    slots: Slots | None = None
    scale: float = 1.0
    amplitude: float = 1.0
    logit_range: tuple[float, ...] = (2.0,)
    fill: float = 0.6
    oversampling: int = 4
    economy: bool = False
    bounded: bool = False
    polish: bool | None = None

    def __check_init__(self):
        if not 1 <= self.amplitude < np.inf:
            raise ValueError(f"amplitude must be at least 1, got {self.amplitude}: it is how much longer tokens may be")
        if not 0 < self.scale < np.inf:
            raise ValueError(f"scale must be positive, got {self.scale}: it is the typical size of a token entry")
        if self.economy and self.head_dim is None:
            raise ValueError("economy needs head_dim: without it the sketches must grow until the ranks are seen")
        for name in ("heads", "head_dim", "oversampling"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not 0 < self.fill <= 1:
            raise ValueError(f"fill must lie above 0 and not above 1, got {self.fill}: a part of the output numbers")
        if not self.logit_range or not all(0 < logit < np.inf for logit in self.logit_range):
            raise ValueError(f"logit_range must hold positive numbers, got {self.logit_range}")
        for name in ("economy", "bounded", "polish"):
            if getattr(self, name) not in (True, False, None):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.slots is not None and not isinstance(self.slots.normaliser, Softmax):
            raise ValueError(
                f"MultiHeadQueries reads weights through the logarithm of a softmax, got {self.slots.normaliser}"
            )

    def learn(self, source: QueryOracle, key: np.random.Generator) -> Learned:
        """Returns the layer behind `source`, or as much of it as could be learned with the status that says why."""
        if self.head_dim is not None and self.head_dim > source.width:
            raise ValueError(f"head_dim is {self.head_dim}, more than the token width {source.width}")
        if self.bounded and not Box(source).exact:
            raise ValueError("bounded takes derivatives by small steps: it needs a float64 box without noise")
        journal = Journal(source)
        try:
            self._copy(Box(source, self.scale, self.amplitude), key, journal)
        except Stop as stop:
            return journal.learned(stop.status, stop.evidence)
        except np.linalg.LinAlgError as error:
            return journal.learned(
                Status.READOUT_ILL_CONDITIONED, f"In the stage '{journal.stage_name}' a linear system failed: {error}."
            )
        except KeyboardInterrupt:
            return journal.learned(Status.INTERRUPTED, f"Stopped in the stage '{journal.stage_name}'.")
        return journal.learned(Status.LEARNED, self._announced(journal.layer))

    def _announced(self, layer: AttentionLayer | None) -> str:
        if layer is None or self.heads in (None, layer.heads):
            return ""
        return f"{self.heads} heads were announced, {layer.heads} are told apart by their answers."

    def _copy(self, box: Box, key: np.random.Generator, journal: Journal) -> None:
        with journal.stage("affine") as figures:
            affine = learn_affine(box, key)
            figures["causal"] = affine.causal
            self._check_mask(affine)
        journal.keep(offset=affine.offset, ov_sum=affine.ov_sum)
        try:
            values = self._by_atoms(box, affine, key, journal)
            self._finish(box, affine, values, key, journal)
        except Stop as stop:
            if stop.status not in SECOND_WAY or not box.exact or self.bounded:
                raise
            journal.note(stop)
            try:
                values = self._by_circle(box, affine, key, journal)
                self._finish(box, affine, values, key, journal)
            except Stop as second:
                # The upper way named the reason when it put a layer together and the layer missed fresh answers.
                named = stop.status is Status.HEADS_NEARLY_EQUAL and second.status in SECOND_WAY
                raise (stop if named else second) from None

    def _check_mask(self, affine: Affine) -> None:
        if self.slots is None:
            return
        announced = isinstance(self.slots.mask, Causal)
        if announced != affine.causal:
            sees = "itself alone" if affine.causal else "the tokens after it"
            raise Stop(Status.NOT_ATTENTION, f"The first of three tokens sees {sees}, unlike the mask that was given.")

    def _by_atoms(self, box: Box, affine: Affine, key: np.random.Generator, journal: Journal) -> Values:
        """The upper way: OV circuits by hard attention and isolation."""
        with journal.stage("atoms") as figures:
            atoms = (learn_soft_atoms if self.bounded else learn_atoms)(box, affine, key)
            figures.update(heads=len(atoms.atoms), conditioning=float(np.linalg.cond(atoms.atoms)))
            figures.update(length=atoms.length, points=atoms.points, sum_residual=atoms.sum_residual)
        journal.keep(atoms=atoms.atoms, spectrum_heads=atoms.spectrum)
        with journal.stage("directions") as figures:
            probes = min(box.width, 5 * len(atoms.atoms)) if self.economy else box.width
            directions = learn_directions(box, affine, atoms, key, probes)
            figures.update(probes=probes, pilots=directions.pilots)
            figures["conditioning"] = float(np.linalg.cond(directions.theta))
        with journal.stage("isolation") as figures:
            values = learn_values(box, affine, atoms, directions, key, self.head_dim, self._oversampling)
            figures.update(values.figures)
        journal.keep(ov=values.ov, spectrum_ov=values.spectra)
        return values

    def _by_circle(self, box: Box, affine: Affine, key: np.random.Generator, journal: Journal) -> Values:
        """The lower way: OV circuits by flips along a circle; mirror images and uniform heads by repeated tokens."""
        with journal.stage("circle") as figures:
            jumps, precision = learn_jumps(box, affine, key)
            figures.update(flips=len(jumps), precision=precision)
        with journal.stage("mirrors") as figures:
            values = resolve(box, affine, jumps, precision, key)
            figures.update(heads=len(values.ov), **values.figures)
        journal.keep(ov=values.ov, spectrum_ov=values.spectra)
        return values

    @property
    def _oversampling(self) -> int:
        return min(self.oversampling, 2) if self.economy else self.oversampling

    def _finish(self, box: Box, affine: Affine, values: Values, key: np.random.Generator, journal: Journal) -> None:
        """Read-out, polish where the box is inexact, and the check on fresh questions."""
        with journal.stage("qk") as figures:
            circuits, blocks = self._read(box, affine, values, key)
            figures.update(ranks=list(circuits.ranks), smallest_weight=circuits.smallest_weight, q=blocks.q, w=blocks.w)
            figures.update(columns=circuits.sketch[0], rows=circuits.sketch[1], misfit=float(circuits.misfit.max()))
        journal.keep(spectrum_qk=circuits.spectra)
        slots = self.slots or Slots(mask=Causal() if affine.causal else None)
        layer = AttentionLayer(circuits.extended[:, :-1], values.ov, circuits.extended[:, -1], affine.offset, slots)
        journal.layer = layer
        if self.polish if self.polish is not None else not box.exact or values.precision > ROUGH:
            ranks = [max(both) for both in zip(circuits.ranks, values.ranks, strict=True)]
            journal.layer = layer = self._polished(box, layer, ranks, key, journal)
        if box.exact:
            with journal.stage("check") as figures:
                figures["error"] = _check(box, layer, key)

    def _read(self, box: Box, affine: Affine, values: Values, key: np.random.Generator) -> tuple[Circuits, Blocks]:
        blocks = block_sizes(values.ov.shape[2], values.ranks, self.fill, box.amplitude > 1)
        # Where logits are too rough to show where a rank ends, the OV circuits have shown it.
        head_dim = self.head_dim or (None if box.exact else max(values.ranks))
        tries = []
        for logit_range in self.logit_range:
            scales = _scales(box, values, logit_range)
            reader = Reader(box, affine, values, blocks)
            tries.append(learn_circuits(reader, scales, key, head_dim, self._oversampling))
        return best_of(tries), blocks

    def _polished(
        self, box: Box, layer: AttentionLayer, ranks: list[int], key: np.random.Generator, journal: Journal
    ) -> AttentionLayer:
        """Gauss-Newton on questions on which every head attends softly, several answers for every unknown."""
        with journal.stage("polish") as figures:
            n = design.sequences(layer, ranks, POLISH_TOKENS)
            tokens = design.design(layer, n, POLISH_TOKENS, key, POLISH_LOGITS_NOISY if box.noise else 1.0)
            polished = polish(layer, [(tokens, box.ask(tokens))], ranks, PATIENT if box.exact else PolishOptions())
            figures.update(rms_before=polished.rms_before, rms_after=polished.rms_after)
            figures.update(steps=polished.steps, iterations=polished.cg_iterations)
        return polished.layer


def _scales(box: Box, values: Values, logit_range: float) -> Scales:
    """Token sizes for which the largest logit of the largest head is near `logit_range` (3.5 standard deviations)."""
    size = logit_range / (3.5 * max(values.logit_size, 1e-9))
    alpha = min(1.0, np.sqrt(size))
    key = min(alpha * box.amplitude, logit_range / (2 * max(values.bias_size, 1e-9)))
    query = alpha if box.amplitude == 1 else min(size / key, 3.0)
    return Scales(query * box.scale, key * box.scale)


def _check(box: Box, layer: AttentionLayer, key: np.random.Generator) -> float:
    """Largest relative error on a few fresh sequences; stops where it shows that heads were merged or missed."""
    tokens = box.scale * key.standard_normal((CHECK_SEQUENCES, CHECK_TOKENS, box.width))
    answers = box.ask(tokens)
    error = largest(np.asarray(layer(tokens)) - answers) / largest(answers - layer.offset)
    if error > CHECK_RTOL:
        raise Stop(
            Status.HEADS_NEARLY_EQUAL,
            f"The layer put together from {layer.heads} heads misses fresh answers by {error:.1e}: heads too alike to "
            "be told apart were taken for one, or one was missed, or head_dim was given too small.",
        )
    return error
