"""Where the route stops being trustworthy, in words: the measured figure, and what would help."""

import numpy as np
from jaxtyping import Float

from attnlearn._status import Status, Stop
from attnlearn.data.examples import Examples
from attnlearn.learners.sculpting.hull import Carving, Hull
from attnlearn.learners.sculpting.ov_sum import Refinement
from attnlearn.learners.sculpting.passes import Certificates

SCARCE = 1.5  # observed numbers an unknown, in the rows of a fit
SINGULAR = 1e-4  # least singular value of the sum over its largest
OWED_TO_FIT = "The answer is owed to the last fit, not to the hull."
OWED_TO_SHARPENING = "The answer is owed to certificates of every head for itself, not to the hull."
GIVE_HEADS = "With heads= given, the polish would go on from random starts."
NOISE_UNKNOWN = (
    "If the labels are noisy, give noise= or tolerance=; else give more examples, or restarts to the polish."
)


def refuse_scarce(examples: Examples, heads: int, fit_rows: int, held_out: int) -> None:
    """Stops where there are fewer rows than the fits read, or the fits' rows do not determine so many heads."""
    wanted = fit_rows + held_out
    if examples.answers < wanted:
        raise Stop(
            Status.TOO_FEW_EXAMPLES,
            f"{examples.answers} rows were given; {fit_rows} are fitted and {held_out} held out: at least "
            f"{-(-wanted // examples.X.shape[1])} examples of {examples.X.shape[1]} tokens are needed.",
        )
    d, o = examples.width, examples.width_out
    unknown = heads * d * (d + o)
    if fit_rows * o < SCARCE * unknown:
        raise Stop(
            Status.TOO_FEW_EXAMPLES,
            f"{heads} heads have {unknown} unknowns, and {fit_rows} fitted rows hold {fit_rows * o} numbers: at least "
            f"{int(np.ceil(SCARCE * unknown / o))} rows are needed; give grid=Grid(rows=...).",
        )


def singular(ov_sum: Float[np.ndarray, "d o"], error: float) -> Stop | None:
    """The verdict on a sum of OV circuits that has no full row rank, up to its sampling `error`."""
    d, o = ov_sum.shape
    if o < d:
        return Stop(
            Status.OV_SUM_SINGULAR,
            f"Outputs have {o} entries and tokens {d}: a token cannot be read back from an output. "
            "al.learners.VariableProjection needs no such rank.",
        )
    values = np.linalg.svd(ov_sum, compute_uv=False)
    lost = max(SINGULAR * float(values[0]), error)
    if values[-1] > lost:
        return None
    return Stop(
        Status.OV_SUM_SINGULAR,
        f"Its singular values go from {values[0]:.2g} down to {values[-1]:.2g}; directions below {lost:.2g} are lost. "
        "al.learners.VariableProjection needs no such rank.",
    )


def flat(score: float, refinement: Refinement) -> Stop | None:
    """The verdict where too few rows look like one token."""
    if score >= refinement.least_score:
        return None
    return Stop(
        Status.W_SUM_UNRELIABLE,
        f"{score:.2g} of the rows are decided by one token, at least {refinement.least_score:.2g} are needed. "
        "Larger attention matrices or fewer tokens an example would help; more examples help little.",
    )


def too_few(found: Certificates, heads: int, carving: Carving) -> Stop:
    """Why there is no hull."""
    d = found.edges.query.shape[1]
    possible = 2**d * (3**d - 1) / 4
    multiple = min(carving.one_head if heads == 1 else carving.more_heads)
    return Stop(
        Status.TOO_FEW_CERTIFICATES,
        f"{len(found.edges.u)} rows of {found.rows} lie near an edge; {multiple * d * d} distinct functionals of full "
        f"rank are needed, and on the cube there are {possible:.3g} at width {d}. More examples help, a larger width "
        "more.",
    )


def word(gap: float, carving: Carving) -> str:
    """What a gap is called."""
    return "good" if gap >= carving.good else "fair" if gap >= carving.fair else "unreliable"


def of_gap(hull: Hull, carving: Carving) -> Stop | None:
    """The verdict on a hull that is not to be trusted."""
    if hull.gap >= carving.fair:
        return None
    d, heads = len(hull.point), len(hull.directions) + 1
    return Stop(
        Status.HULL_UNRELIABLE,
        f"The gap at {heads} heads is {hull.gap:.2g} from {hull.functionals} functionals; {carving.fair:.2g} is fair, "
        f"{carving.good:.2g} good. More examples help{', a larger width more' if d <= 6 and heads > 1 else ''}.",
    )
