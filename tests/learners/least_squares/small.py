"""Small planted problems for the tests of this folder; one shape for most, since every shape compiles anew."""

import numpy as np

import attnlearn as al
from attnlearn._types import float64
from attnlearn.data.examples import Examples
from attnlearn.layers.features import Outer
from attnlearn.learners.least_squares import VariableProjection
from attnlearn.learners.least_squares.frame import Frame, Model
from attnlearn.learners.least_squares.passes import Form

SIZES = 4, 2, 8, 12  # d, m, k, n


def planted(seed, sizes=SIZES, logit_std=1.0, width_out=None, rank=None, slots=al.Slots(), biases=False):
    """The recipe of the tables: Θ with entries (s/d)², W with entries 1/d; the key of a learner is never this one."""
    d, m = sizes[:2]
    key, out = np.random.default_rng([seed, 7]), width_out or d
    if rank is None:
        qk = key.standard_normal((m, d, d)) * logit_std / d
    else:
        qk = key.standard_normal((m, d, rank)) @ key.standard_normal((m, rank, d)) * logit_std / (d * rank**0.5)
    ov = key.standard_normal((m, d, out)) / d**0.5
    bias = key.standard_normal((m, d)) * logit_std / d**0.5 if biases else None
    return al.AttentionLayer(qk, ov, bias, key.standard_normal(out) if biases else None, slots)


def tokens(seed, sizes=SIZES, gaussian=False):
    """Tokens ±1, or Gaussian ones."""
    d, _, k, n = sizes
    key = np.random.default_rng([seed, 8])
    return key.standard_normal((n, k, d)) if gaussian else key.choice([-1.0, 1.0], (n, k, d))


def examples(layer, X, noise=0.0, mask=None, rows="all"):
    """What the layer says, with Gaussian noise of this share of the root mean square of its outputs."""
    Y = layer(X, mask, rows)
    sigma = noise * np.sqrt(np.mean(Y**2))
    return Examples(X, Y + sigma * np.random.default_rng(9).standard_normal(Y.shape), mask, rows)


def both(seed, sizes=SIZES, **options):
    """A planted layer and its examples."""
    layer = planted(seed, sizes, **options)
    return layer, examples(layer, tokens(seed, sizes))


def learned(given, seed=0, **options):
    return VariableProjection(**options).learn(given, np.random.default_rng(seed))


def figures(result, name):
    """The figures of a phase."""
    return next(phase.figures for phase in result.phases if phase.name == name)


@float64
def batch_of(given, model=None):
    """Examples in their frame, and the form of the model."""
    model = model or Model(al.Slots(), True, True)
    frame = Frame.of([given], model)
    return Form(model.slots.normaliser, model.offset), frame.batch(given, model)


def random_outer(key, batch, heads=2, rank=None):
    d_q, d = batch.queries.shape[-1], batch.keys.shape[-1]
    if rank is None:
        return Outer(0.4 * key.standard_normal((heads, d_q, d)))
    thin = [(heads, d_q, rank), (heads, d, rank), (heads, d, rank)]
    return Outer(*(0.6 * key.standard_normal(shape) for shape in thin))
