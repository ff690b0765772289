"""`AttentionRegressor`: sequences and outputs in, a certified attention layer behind `predict`."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from attnlearn._status import Status
from attnlearn.data.examples import Examples
from attnlearn.estimators.failures import check_on_failure, sentence, speak
from attnlearn.estimators.named_slots import as_slots
from attnlearn.estimators.random_state import as_seed
from attnlearn.estimators.sequences import Sequences, as_sequences, as_targets
from attnlearn.layers.inputs import ROWS
from attnlearn.learners import Learned, VariableProjection
from attnlearn.recovery import Recovery, recover


class AttentionRegressor(RegressorMixin, BaseEstimator):
    r"""The attention layer behind sequences and their outputs.

    Fits :math:`F(X) = c + \sum_i \mathrm{softmax}(X \Theta_i X^\top + 1 (X \beta_i)^\top) X W_i` by least squares,
    with the :math:`W_i` eliminated, and certifies the result. Other normalisers and masks are slots.

    Parameters
    ----------
    heads : int, default=None
        Number of heads. None: it is found.
    head_dim : int, default=None
        Largest rank of the circuits. None: full circuits.
    slots : Slots, str, or tuple of these, default="softmax"
        Normaliser and mask: `al.Slots(...)`, or a name, "softmax", "sigmoid", "relu", "linear", "erf", each also as
        "causal softmax" and so on. Of several candidates, or of all names with "auto", the evidence chooses.
    rows : {"all", "last", "mean"}, default="all"
        What `y` holds of a sequence: the outputs of all its tokens, of the last one, or the mean over them.
    query_bias, offset : bool, default=True
        Whether the layer has the :math:`\beta_i` and :math:`c`.
    noise : float, default=None
        Standard deviation of additive noise on `y`; 0: there is none. None: not known.
    restarts : int, default=None
        Starts of the search. None: by the size of the problem.
    certify : bool, default=True
        Ask for the certificate. Without it a layer that was learned counts as success.
    on_failure : {"raise", "warn"}, default="raise"
        Whether a layer that was not recovered is a `RecoveryError`, or a `RecoveryWarning` and the best layer so far.
        Where there is no layer at all, it is an error either way.
    random_state : int, RandomState instance or None, default=None
        Of all randomness. An int gives what `al.recover(..., seed=random_state)` gives.

    Attributes
    ----------
    layer_ : AttentionLayer
        The layer learned, or the best so far; None where there is none.
    status_ : Status
        `Status.RECOVERED` (`Status.LEARNED` without a certificate), or what stopped the fit.
    certificate_ : Certificate or None
        What the examples prove about the layer. None where it was not asked for, or nothing was learned.
    n_iter_ : int
        Steps of Levenberg and Marquardt, over all starts.
    n_features_in_ : int
        Width of a token.

    Notes
    -----
    Sequences of different lengths come as a list of arrays, which cross-validation can cut; or as one array with
    `mask`, which goes through it with metadata routing, `set_fit_request(mask=True)`.

    A search with `on_failure="raise"` scores a candidate that is not recovered with `error_score`; with "warn" it
    scores the best layer so far. Interrupting a fit keeps what was learned and raises `KeyboardInterrupt`.

    Sample weights are not supported: least squares here weighs every answered row the same.

    Examples
    --------
    >>> import numpy as np
    >>> import attnlearn as al
    >>> hidden = al.random_layer(0, heads=1, width=3)
    >>> X = np.random.default_rng(0).standard_normal((40, 4, 3))
    >>> model = al.estimators.AttentionRegressor(heads=1, random_state=0).fit(X, hidden(X))
    >>> model.status_.name, model.certificate_.passed
    ('RECOVERED', True)
    >>> bool(al.distance(model.layer_, hidden).qk < 1e-6)
    True
    """

    def __init__(  # unannotated: scikit-learn stores first and checks in `fit`
        self,
        heads=None,
        *,
        head_dim=None,
        slots="softmax",
        rows="all",
        query_bias=True,
        offset=True,
        noise=None,
        restarts=None,
        certify=True,
        on_failure="raise",
        random_state=None,
    ):
        self.heads = heads
        self.head_dim = head_dim
        self.slots = slots
        self.rows = rows
        self.query_bias = query_bias
        self.offset = offset
        self.noise = noise
        self.restarts = restarts
        self.certify = certify
        self.on_failure = on_failure
        self.random_state = random_state

    def fit(self, X: Any, y: Any, mask: Any = None) -> "AttentionRegressor":
        """Learns the layer.

        Parameters
        ----------
        X : array (n, k, d), or list of n arrays (k_i, d)
            Sequences of tokens.
        y : array (n, k, d_out), or list of n arrays (k_i, d_out); with `rows` "last" or "mean" (n, d_out) or (n,)
            Outputs.
        mask : array (n, k) of bool, default=None
            True where a token is there; None: all are. What stands in absent tokens is ignored.

        Returns
        -------
        AttentionRegressor
            Itself.

        Raises
        ------
        RecoveryError
            If the layer is not recovered and `on_failure` is "raise", or there is no layer.
        TypeError, ValueError
            For wrong use.
        """
        check_on_failure(self.on_failure)
        learner = self._learner()
        examples = self._examples(X, y, mask, reset=True)
        seed = as_seed(self.random_state)
        if self.certify:
            found = recover(examples, learner=learner, seed=seed)
        else:
            found = learner.learn(examples, np.random.default_rng(seed))
        self.layer_, self.status_ = found.layer, found.status
        self.certificate_ = found.certificate if isinstance(found, Recovery) else None
        self.n_iter_ = sum(phase.figures["steps"] for phase in found.phases if phase.name == "search")
        self._single_column = self.rows != "all" and np.asarray(y).ndim == 1
        self._speak_of_failure(found)
        return self

    def predict(self, X: Any, mask: Any = None) -> np.ndarray | list[np.ndarray]:
        """Outputs of the layer.

        Parameters
        ----------
        X : array (n, k, d), or list of n arrays (k_i, d)
            Sequences of tokens.
        mask : array (n, k) of bool, default=None
            True where a token is there; None: all are.

        Returns
        -------
        array or list of arrays
            In the shape that `y` has in `fit`; a list for a list with `rows` "all". Absent tokens have outputs 0.
        """
        check_is_fitted(self)
        sequences = self._sequences(X, mask, reset=False)
        outputs = self._outputs(sequences)
        if self.rows == "all":
            return sequences.cut(outputs) if sequences.listed else outputs
        return outputs[:, 0] if self._single_column else outputs

    def score(self, X: Any, y: Any, mask: Any = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        r"""The coefficient of determination :math:`R^2` over all rows of tokens that are there.

        Parameters
        ----------
        X, y, mask
            As for `fit`.

        Returns
        -------
        float
            :math:`1 - \sum (y - F)^2 / \sum (y - \bar y)^2`, the mean over output columns; 1 at best.
        """
        check_is_fitted(self)
        examples = self._examples(X, y, mask, reset=False)
        answered = np.asarray(examples.inputs.answered())
        outputs = self._outputs(examples).reshape(*answered.shape, -1)
        return float(r2_score(examples.targets[answered], outputs[answered]))

    def _learner(self) -> VariableProjection:
        return VariableProjection(
            heads=self.heads,
            head_dim=self.head_dim,
            slots=as_slots(self.slots),
            query_bias=self.query_bias,
            offset=self.offset,
            noise=self.noise,
            restarts=self.restarts,
        )

    def _sequences(self, X: Any, mask: Any, reset: bool) -> Sequences:
        """`X` checked; `reset`: its width is learned, else compared."""
        sequences = as_sequences(X, mask)
        tokens: Any = sequences.tokens  # rows of features, in the eyes of scikit-learn
        validate_data(self, tokens, reset=reset)
        return sequences

    def _examples(self, X: Any, y: Any, mask: Any, reset: bool) -> Examples:
        sequences = self._sequences(X, mask, reset)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        return Examples(sequences.X, as_targets(y, sequences, self.rows), sequences.mask, self.rows)

    def _outputs(self, given: Sequences | Examples) -> np.ndarray:
        """What the layer answers: (n, k, d_out), or (n, d_out)."""
        layer, rows = self.layer_, self.rows
        assert layer is not None and rows in ROWS  # it is fitted
        return np.asarray(layer(given.X, given.mask, rows))

    def _speak_of_failure(self, found: Recovery | Learned) -> None:
        """Nothing on success; else an error, or the warning that was asked for."""
        if found.status is (Status.RECOVERED if self.certify else Status.LEARNED):
            return
        if found.status is Status.INTERRUPTED:
            raise KeyboardInterrupt(sentence(found.status, found.evidence))
        speak(found.status, found.evidence, self.on_failure == "raise" or found.layer is None, stacklevel=4)

    def __sklearn_is_fitted__(self) -> bool:
        return getattr(self, "layer_", None) is not None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.target_tags.multi_output = True
        assert tags.regressor_tags is not None  # it is one
        tags.regressor_tags.poor_score = True  # on outputs that no layer gives
        return tags
