"""Brute-force twins of single-location regression: integrals, vectors and samples instead of closed forms."""

import json
import math
from pathlib import Path

import numpy as np
from scipy import special

STEP = 1e-100  # of complex-step derivatives: no difference is taken, so none cancels
# Trapezoids miss less than exp(-(pi / spacing)^2 / (1/2 + 2 slope^2)) of an analytic integrand: nothing, below slope 3.
NODES = np.arange(-100, 101) / 10
WEIGHTS = np.exp(-(NODES**2) / 2) / 10 / math.sqrt(2 * math.pi)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "single-location.json").read_text())["entries"]


def golden(prefix):
    """The entries of the golden file whose names start with `prefix`."""
    found = [entry for entry in GOLDEN if entry["id"].startswith(prefix)]
    assert found, prefix
    return found


def agrees(got, entry, value=None):
    """Whether |got - value| <= atol + rtol |value| in every component, as the golden file asks."""
    value = np.asarray(entry["value"] if value is None else value, float)
    return np.shape(got) == value.shape and bool(
        (np.abs(got - value) <= entry["atol"] + entry["rtol"] * np.abs(value)).all()
    )


def setting(inputs):
    """The arguments (lam, gamma, d, n_tokens) of an entry of the golden file."""
    return inputs.get("lam", inputs.get("lam0")), inputs["gamma"], inputs["d"], inputs["L"]


def derf(x):
    """The derivative of the error function."""
    return 2 / math.sqrt(math.pi) * np.exp(-(x**2))


def erf(z):
    """The error function, with its derivative for the imaginary part of a complex step."""
    return special.erf(z.real) + (1j * z.imag * derf(z.real) if np.iscomplexobj(z) else 0)


def expectation(values):
    """E f(N) from the values of f at the nodes, along the last axis."""
    return values @ WEIGHTS


def zeta_by_quadrature(t, g):
    """E erf(t + g N)^2 and its derivatives in t and in g."""
    z = t + g * NODES
    slope = 2 * special.erf(z) * derf(z)
    return expectation(special.erf(z) ** 2), expectation(slope), expectation(NODES * slope)


def risk_by_quadrature(state, lam, gamma, d, n_tokens):
    """The risk of the definition, conditioned on the key scores.

    `state` (..., 5), real or complex, gives an array (...).
    """
    kappa, nu, theta, eta, rho = (np.asarray(state)[..., column, None] for column in range(5))
    x, h, g2 = NODES, math.sqrt(d / 2), gamma**2
    e, seen = erf(lam * (h * kappa + gamma * x)), h * theta + gamma * rho * x  # key response, mean of the value score
    square = seen**2 + g2 * (1 - rho**2)
    cross = seen * gamma * eta * x + g2 * (nu - rho * eta)
    I2 = expectation(e**2 * square - 2 * e * cross + g2 * eta**2 * x**2 + g2 * (1 - eta**2))
    I1 = expectation(e * seen - gamma * eta * x)
    other = erf(lam * x)
    U2 = expectation(other**2 * (rho**2 * x**2 + 1 - rho**2))
    U1 = expectation(other * rho * x)
    return I2 + (n_tokens - 1) * (U2 + 2 * I1 * U1 + (n_tokens - 2) * U1**2)


def gradient_by_quadrature(state, *setting):
    """The five partial derivatives of `risk_by_quadrature`, by complex steps."""
    moved = np.asarray(state)[..., None, :] + 1j * STEP * np.eye(5)
    return risk_by_quadrature(moved, *setting).imag / STEP


def unit(x):
    """`x` over its length along the last axis; no conjugates, so that a complex step passes."""
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True))


def of_vectors(k, v):
    """Overlaps (..., 5) of k, v (..., d) with k* = e1 and v* = e2."""
    k, v = np.broadcast_arrays(k, v)
    return np.stack([k[..., 0], v[..., 1], v[..., 0], k[..., 1], (k * v).sum(axis=-1)], axis=-1)


def vector_gradient(k, v, *setting):
    """The gradients of the risk in k and in v (..., width), a coordinate at a time by complex steps."""
    steps = 1j * STEP * np.eye(k.shape[-1])
    k, v = k[..., None, :], v[..., None, :]
    return tuple(
        risk_by_quadrature(of_vectors(*moved), *setting).imag / STEP for moved in ((k + steps, v), (k, v + steps))
    )


def projected(x, gradient, step_size):
    """A step along the tangent part of the gradient, back to the sphere."""
    return unit(x - step_size * (gradient - (x * gradient).sum(axis=-1, keepdims=True) * x))


def vector_step(k, v, step_size, *setting):
    """One projected gradient step of both vectors (..., width), both gradients at the old point."""
    return tuple(projected(x, g, step_size) for x, g in zip((k, v), vector_gradient(k, v, *setting), strict=True))


def gram(state):
    """The Gram matrices (..., 4, 4) of (k*, v*, k, v)."""
    kappa, nu, theta, eta, rho = np.moveaxis(np.asarray(state), -1, 0)
    one, zero = np.ones_like(kappa), np.zeros_like(kappa)
    rows = [[one, zero, kappa, theta], [zero, one, eta, nu], [kappa, eta, one, rho], [theta, nu, rho, one]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def random_pairs(key, n, width):
    """Uniform unit vectors k, v (n, width)."""
    return unit(key.standard_normal((n, width))), unit(key.standard_normal((n, width)))


def tangent_hessian(k, v, *setting):
    """Eigenvalues of the Hessian of k, v (width,) on the pair of spheres.

    Central differences (1e-5) of the complex-step gradient of R(unit, unit), in a basis of the tangent space.
    """
    width = len(k)
    x = np.concatenate([k, v])

    def slope(points):
        moved = points[..., None, :] + 1j * STEP * np.eye(2 * width)
        return risk_by_quadrature(of_vectors(unit(moved[..., :width]), unit(moved[..., width:])), *setting).imag / STEP

    moves = 1e-5 * np.eye(2 * width)
    hessian = (slope(x + moves) - slope(x - moves)) / 2e-5
    normal = np.zeros((2, 2 * width))
    normal[0, :width], normal[1, width:] = k, v
    tangent = np.linalg.svd(normal)[2][2:]
    return np.linalg.eigvalsh(tangent @ (hessian + hessian.T) / 2 @ tangent.T)


def sequences(key, n, d, n_tokens, gamma, epsilon):
    """Sequences X (n, tokens, d) and labels y (n,) of the task, k* = e1 and v* = e2."""
    X, rows = key.standard_normal((n, n_tokens, d)), np.arange(n)
    place = key.integers(0, n_tokens, n)
    X[rows, place] *= gamma
    X[rows, place, 0] += math.sqrt(d / 2)
    return X, X[rows, place, 1] + epsilon * key.standard_normal(n)


def direct_step(key, k, v, step_size, lam, gamma, d, n_tokens, batch_size, epsilon):
    """One SGD step of every replica k, v (n, d) on its own fresh batch of whole vectors."""
    n = len(k)
    X, y = sequences(key, n * batch_size, d, n_tokens, gamma, epsilon)
    X, y = X.reshape(n, batch_size, n_tokens, d), y.reshape(n, batch_size)
    s, r = np.einsum("nbld,nd->nbl", X, k), np.einsum("nbld,nd->nbl", X, v)
    e = 2 / batch_size * ((special.erf(lam * s) * r).sum(axis=-1) - y)[..., None]
    in_k = np.einsum("nbl,nbld->nd", e * lam * derf(lam * s) * r, X)
    in_v = np.einsum("nbl,nbld->nd", e * special.erf(lam * s), X)
    return projected(k, in_k, step_size), projected(v, in_v, step_size)


def direct_sgd(seed, start, n, n_steps, *setting):
    """Overlaps (n, 5) of n replicas after `n_steps` direct steps from vectors k, v (d,)."""
    key = np.random.default_rng(seed)
    k, v = (np.tile(x, (n, 1)) for x in start)
    for _ in range(n_steps):
        k, v = direct_step(key, k, v, *setting)
    return of_vectors(k, v)


def dot(x, y):
    """Products along the last axis."""
    return (x * y).sum(axis=-1)


def column(x):
    """One number of every replica, to multiply vectors with."""
    return x[:, None]


def factor(a, b, c):
    """The Cholesky factor (c11, c21, c22) of [[a, b], [b, c]]."""
    c11 = np.sqrt(a) + 1e-300
    return c11, b / c11, np.sqrt(np.maximum(c - (b / c11) ** 2, 0))


def along(weights, s, t, k, b2):
    """What tokens with the scores s along k and t along b2 add to a gradient inside the span of k and v."""
    return column((weights * s).sum(axis=(1, 2))) * k + column((weights * t).sum(axis=(1, 2))) * b2


def turned(uk, uv, fk, fv1, fv2):
    """Unit vectors in a frame whose third axis holds all of k beyond k* and v*; `f` lie outside the old frame."""
    K, V = np.column_stack([uk[:, 2:], fk]), np.column_stack([uv[:, 2:], fv1])
    length = np.sqrt(dot(K, K))
    v3 = dot(K, V) / length
    v4 = np.sqrt(np.maximum(dot(V, V) + fv2**2 - v3**2, 0))
    return unit(np.column_stack([uk[:, :2], length, 0 * length])), unit(np.column_stack([uv[:, :2], v3, v4]))


def reduced_step(key, k, v, mutant, step_size, lam, gamma, d, n_tokens, batch_size, epsilon):
    """A step of replicas k, v (n, 4) in the moving frame; `mutant` names the one thing that is then wrong."""
    n = len(k)
    rho = dot(k, v)
    b2 = (v - column(rho) * k) / column(np.sqrt(np.maximum(1 - rho**2, 1e-12)))
    s, t = key.standard_normal((2, n, batch_size, n_tokens - 1))
    r = rho[:, None, None] * s + np.sqrt(1 - rho**2)[:, None, None] * t
    X1 = gamma * key.standard_normal((n, batch_size, 4)) + math.sqrt(d / 2) * np.eye(4)[0]
    s1, r1 = (X1 @ k[..., None])[..., 0], (X1 @ v[..., None])[..., 0]
    y = X1[..., 1] + epsilon * key.standard_normal((n, batch_size))
    e = 2 / batch_size * ((special.erf(lam * s) * r).sum(axis=-1) + special.erf(lam * s1) * r1 - y)
    a, c = e[..., None] * lam * derf(lam * s) * r, e[..., None] * special.erf(lam * s)
    a1, c1 = e * lam * derf(lam * s1) * r1, e * special.erf(lam * s1)
    inside = [(x * y).sum(axis=(1, 2)) for x, y in ((a, a), (a, c), (c, c))]
    c11, c21, c22 = map(column, factor(*inside))
    first, second = key.standard_normal((2, n, 4))
    nk, nv = c11 * first, c21 * first + c22 * second
    if mutant != "noise not projected":
        nk, nv = (x - column(dot(x, k)) * k - column(dot(x, b2)) * b2 for x in (nk, nv))
    gk = along(a, s, t, k, b2) + nk + np.einsum("nb,nbi->ni", a1, X1)
    gv = along(c, s, t, k, b2) + nv + np.einsum("nb,nbi->ni", c1, X1)
    alone = gamma**2 * np.stack([dot(a1, a1), dot(a1, c1), dot(c1, c1)])
    c11, c21, c22 = factor(*(alone if mutant == "no Gam outside the frame" else alone + np.stack(inside)))
    w1 = np.sqrt(key.chisquare(d - 4, n))
    w2 = np.sqrt(key.chisquare(d - 4 if mutant == "d - 4 twice" else d - 5, n))
    fk, fv1 = -step_size * c11 * w1, -step_size * (c21 * w1 + c22 * key.standard_normal(n))
    uk, uv = k - step_size * (gk - column(dot(k, gk)) * k), v - step_size * (gv - column(dot(v, gv)) * v)
    return turned(uk, uv, fk, fv1, -step_size * c22 * w2)


def reduced_sgd(seed, start, n, n_steps, mutant, *setting):
    """Overlaps (n, 5) of n replicas after `n_steps` reduced steps from vectors k, v (4,), k without a fourth part."""
    key = np.random.default_rng(seed)
    k, v = (np.tile(x, (n, 1)) for x in start)
    for _ in range(n_steps):
        k, v = reduced_step(key, k, v, mutant, *setting)
    return of_vectors(k, v)
