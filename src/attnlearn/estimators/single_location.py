"""`SingleLocationRegressor`: sequences with one informative token and a label each, behind `fit` and `predict`."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from attnlearn._status import Status
from attnlearn.estimators.failures import check_on_failure, speak
from attnlearn.estimators.random_state import as_seed
from attnlearn.estimators.sequences import as_sequences
from attnlearn.learners.single_location import LocatedToken, SingleLocationEM

DOUBTS = (Status.TOO_FEW_EXAMPLES, Status.NOT_CONVERGED)  # the best that these data and steps give: never an error


class SingleLocationRegressor(RegressorMixin, BaseEstimator):
    r"""The informative token of every sequence, and what it says.

    Fits :math:`y = \langle X_J, v\rangle + \varepsilon N`, where the place :math:`J` is hidden: token :math:`X_J` has
    the mean :math:`\sqrt{d/2}\,k` and the covariance :math:`\gamma^2 I_d`, all others are standard normal. Predicts the
    mean of the label given the sequence, :math:`\sum_l P(J = l \mid X)\,\langle X_l, v\rangle`.

    Parameters
    ----------
    max_steps : int, default=300
        Most steps of expectation-maximisation from one start, and again with the labels.
    tol : float, default=1e-8
        Movement of the two directions, relative to their length, at which they count as settled.
    on_failure : {"raise", "warn"}, default="raise"
        Whether a fit that found no informative token, no single-location data or no relation to the labels is a
        `RecoveryError`, or a `RecoveryWarning`. Fewer labels than entries of a token, and steps that ran out, are a
        warning either way.
    random_state : int, RandomState instance or None, default=None
        Of the sequences whose tokens are tried as starts, where the mean of all tokens is too weak a start.

    Attributes
    ----------
    k_ : array (d,)
        Key direction, of length 1.
    v_ : array (d,)
        Value direction; shrunken where labels are few.
    gamma_, epsilon_ : float
        Standard deviations of an entry of the informative token, and of the label noise.
    k_error_, v_error_ : array (d,)
        Standard errors of the entries of `k_` and `v_`, as if the places were known.
    gamma_error_, epsilon_error_ : float
        Standard errors of `gamma_` and `epsilon_`.
    location_ : array (n,) of int
        Likeliest place in every sequence of `fit`.
    status_ : Status
        `Status.LEARNED`, or what stands in the way and was a warning; a `RecoveryError` has its own `status`.
    n_iter_ : int
        Steps of expectation-maximisation, over all starts.
    n_features_in_ : int
        Width d of a token.

    Notes
    -----
    Tokens must be standardised, two or more in a sequence and four or more entries wide; the scale of the labels is
    free. A `fit` that raises leaves the model as it was: unfitted, or with its previous fit.

    Examples
    --------
    >>> import numpy as np
    >>> from attnlearn.data import SingleLocationTask
    >>> from attnlearn.estimators import SingleLocationRegressor
    >>> task = SingleLocationTask.random(0, d=20)
    >>> X, y, location = task.sample(np.random.default_rng(0), 100)
    >>> model = SingleLocationRegressor(random_state=0).fit(X, y)
    >>> model.status_.name, bool(np.mean(model.location_ == location) > 0.95)
    ('LEARNED', True)
    >>> bool(model.k_ @ task.k_star > 0.99 and model.v_ @ task.v_star > 0.99)
    True
    """

    def __init__(  # unannotated: scikit-learn stores first and checks in `fit`
        self, *, max_steps=300, tol=1e-8, on_failure="raise", random_state=None
    ):
        self.max_steps = max_steps
        self.tol = tol
        self.on_failure = on_failure
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "SingleLocationRegressor":
        """Learns the two directions and the two spreads.

        Parameters
        ----------
        X : array (n, tokens, d), or list of n arrays (tokens, d)
            Sequences of one length.
        y : array (n,)
            Labels.

        Returns
        -------
        SingleLocationRegressor
            Itself.

        Raises
        ------
        RecoveryError
            If `on_failure` is "raise" and there is no informative token, data are not single-location data, or labels
            have nothing to do with it. Its `status` says which.
        TypeError, ValueError
            For wrong use.
        """
        check_on_failure(self.on_failure)
        learner = SingleLocationEM(max_steps=self.max_steps, tol=self.tol)
        fresh: Any = clone(self)  # learns the width, so that a failure leaves that of the previous fit
        X = fresh._sequences(X, reset=True)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        y = column_or_1d(y, dtype=np.float64, warn=True)
        found = learner.learn(X, y, np.random.default_rng(as_seed(self.random_state)))
        fatal = self.on_failure == "raise" and found.status not in (Status.LEARNED, *DOUBTS)
        if not fatal:
            self._keep(found)
        if found.status is not Status.LEARNED:
            speak(found.status, found.evidence, fatal)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The mean of the label given each sequence.

        Parameters
        ----------
        X : array (n, tokens, d), or list of n arrays (tokens, d)
            Sequences of one length, which may be another than in `fit`.

        Returns
        -------
        array (n,)
            Predicted labels.
        """
        check_is_fitted(self)
        return self.found_.predict(self._sequences(X, reset=False))

    def locate(self, X: Any) -> np.ndarray:
        """The probability that each token is the informative one.

        Parameters
        ----------
        X : array (n, tokens, d), or list of n arrays (tokens, d)
            Sequences of one length.

        Returns
        -------
        array (n, tokens)
            Probabilities; each row adds up to 1.
        """
        check_is_fitted(self)
        return self.found_.locate(self._sequences(X, reset=False))

    def _keep(self, found: LocatedToken) -> None:
        self.found_, self.status_, self.n_iter_, self.n_features_in_ = found, found.status, found.steps, len(found.k)
        self.k_, self.v_, self.gamma_, self.epsilon_ = found.k, found.v, found.gamma, found.epsilon
        self.k_error_, self.v_error_, self.gamma_error_, self.epsilon_error_ = found.errors
        self.location_ = found.location

    def _sequences(self, X: Any, reset: bool) -> np.ndarray:
        """`X` checked; `reset`: its width is learned, else compared."""
        sequences = as_sequences(X)
        if sequences.mask is not None:
            raise ValueError("X must hold sequences of one length: every place is equally likely beforehand")
        tokens: Any = sequences.tokens  # rows of features, in the eyes of scikit-learn
        validate_data(self, tokens, reset=reset)
        return sequences.X

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "found_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        assert tags.regressor_tags is not None  # it is one
        tags.regressor_tags.poor_score = True  # on data without an informative token
        return tags
