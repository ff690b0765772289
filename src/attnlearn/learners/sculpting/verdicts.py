"""Where the route stops being trustworthy, in words: the measured figure, and what would help."""

import numpy as np
from jaxtyping import Float

from attnlearn._status import Status, Stop
from attnlearn.data.examples import Examples
from attnlearn.learners.sculpting.hull import Carving, Hull, fewest, gaps, select
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
    distinct = len(select(found.edges, len(found.edges.u), found.error).b)
    cube = np.all(np.abs(found.edges.query) == 1) and len(found.edges.u)
    limit = f" On the cube there are {2**d * (3**d - 1) / 4:.3g} at width {d}; a larger width helps." if cube else ""
    return Stop(
        Status.TOO_FEW_CERTIFICATES,
        f"{found.rows} rows gave {distinct} distinct functionals; {fewest(heads, d, carving)} of full rank are needed. "
        f"More examples help.{limit}",
    )


def of_error(error: float, allowed: float) -> Stop | None:
    """The verdict on a layer in the hull that does not explain the held-out rows."""
    if error <= allowed:
        return None
    return Stop(
        Status.NOT_VALIDATED,
        f"The layer in the hull errs by {error:.2g} on held-out rows, where {allowed:.2g} is accepted: the hull does "
        "not hold the heads, or their number is wrong.",
    )


def word(gap: float, carving: Carving) -> str:
    """What a gap is called."""
    return "good" if gap >= carving.good else "fair" if gap >= carving.fair else "unreliable"


def of_gap(hull: Hull, carving: Carving) -> Stop | None:
    """The verdict on a hull that is not to be trusted."""
    if hull.gap >= carving.fair:
        return None
    heads, peak = len(hull.directions) + 1, int(np.argmax(gaps(hull))) + 1
    hint = "More examples help." if peak == heads else f"More examples help; the gap peaks at {peak} heads."
    return Stop(
        Status.HULL_UNRELIABLE,
        f"The gap at {heads} heads is {hull.gap:.2g} from {hull.functionals} functionals; {carving.fair:.2g} is fair, "
        f"{carving.good:.2g} good. {hint}",
    )
