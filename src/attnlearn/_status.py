"""How a run ended. The value of a status is the sentence for people."""

import enum


class Status(enum.Enum):
    """`RECOVERED` is success and nothing else is; every other member names what stopped the run."""

    RECOVERED = "Recovered: the layer was learned and its certificate passed."
    LEARNED = "Learned: every stage passed its own checks; no certificate has been asked for yet."
    NOT_CERTIFIED = "Not certified: the layer was learned, and a check of its certificate failed."
    OV_DEGENERATE = "The answers do not depend on the tokens, so there is no OV circuit to find."
    CANNOT_SATURATE = (
        "Attention never became hard, however long the tokens: "
        "use the soft bootstrap for a source that bounds its inputs."
    )
    HEADS_UNRESOLVED = "The heads could not be told apart: ranks, jumps and sum rule disagree after every attempt."
    HEADS_NEARLY_EQUAL = "Two heads are too alike to be separated at this precision."
    ISOLATION_FAILED = "No token isolates every head: its attention stays spread over several tokens."
    OV_SUM_MISMATCH = "The OV circuits found do not add up to their measured sum."
    READOUT_ILL_CONDITIONED = (
        "The attention weights cannot be read from the answers: too many unknowns or too little precision."
    )
    BUDGET_EXHAUSTED = "The query budget ran out before the layer was learned and certified."
    ORACLE_FAILED = "The black box failed: it raised, or answered with a wrong shape, NaN or infinity."
    ORACLE_INCONSISTENT = (
        "The black box contradicts itself: equal questions got answers further apart than its declared noise."
    )
    TOO_FEW_EXAMPLES = "Too few examples: there are fewer observed numbers than unknowns."
    STALLED = "Stalled above the noise: no start led to a layer that explains the outputs."
    NO_AGREEMENT = "No agreement: independent starts ended at different fits, and the noise is not known."
    WRONG_HEADS = "Wrong number of heads suspected: another number explains the outputs better."
    NOT_IDENTIFIABLE = "Not identifiable: these inputs do not show the layer."
    W_SUM_UNRELIABLE = (
        "Not spiky: too few rows are decided by one token, so the sum of the OV circuits is not reliable."
    )
    OV_SUM_SINGULAR = "The sum of the OV circuits has no full row rank, so outputs cannot be turned into tokens."
    TOO_FEW_CERTIFICATES = "Too few distinct certificates: they do not determine a hull of the attention matrices."
    HULL_UNRELIABLE = "The hull of the attention matrices is unreliable: its singular gap is small."
    NOT_VALIDATED = "Not validated: no candidate explains the rows that were held out."
    NOT_ATTENTION = "The source is not an attention layer of this family."
    NO_INFORMATIVE_TOKEN = (
        "No informative token: noise alone explains the tokens about as well; more sequences may show one."
    )
    NOT_SINGLE_LOCATION = (
        "Not single-location data: wanted are standard normal tokens, "
        "and in each sequence one whose mean has the length sqrt(d/2)."
    )
    LABELS_UNEXPLAINED = (
        "Labels unexplained: no value direction does better than chance; more sequences or less noise may show one."
    )
    NOT_CONVERGED = "Not converged: the steps ran out while the estimates still moved; allow more with max_steps."
    INTERRUPTED = "Interrupted: what was learned so far is kept."


class Stop(Exception):
    """Carries a status and its evidence from the depth of a run to the learner, which catches it.

    Never seen by users: `recover` and every learner turn it into a result.
    """

    def __init__(self, status: Status, evidence: str = ""):
        super().__init__(f"{status.value} {evidence}".strip())
        self.status = status
        self.evidence = evidence
