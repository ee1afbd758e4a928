"""Surrogates that run in the reader's browser: the exported model, and what a page needs to judge it by itself.

`book/_ext/browser_pages.py` puts them on a page. There `book/_static/in_browser.js` evaluates the model with
onnxruntime-web, computes A(p) and its exact inverse, and bounds the error of the model by its residual.
"""

from __future__ import annotations

import base64
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import neumatc as nm

# Steps of a slider; the curve has every second of them.
STEPS, STRIDE = 480, 2
# Of the channel: noise power over that of a stream, as in the chapter on wireless inversion.
NOISE = 0.1
# Of the chain: masses, and damping as a part of the stiffness.
MASSES, DAMPING = 16, 0.01
TOLERANCE = 1e-3
# Shades of the picture that stands where nothing runs.
SHADES = 12


@dataclass(frozen=True)
class Runs:
    """One surrogate that runs in a browser.

    Attributes:
        name: Its name on the page.
        title: What it shows, for screen readers.
        problem: Family and operation.
        surrogate: The map that was exported.
        model: The ONNX model, as `neumatc.export_onnx` writes it.
        data: What in_browser.js reads: numbers, texts, and arrays as base64 of little-endian numbers.
    """

    name: str
    title: str
    problem: nm.Problem
    surrogate: nm.Surrogate
    model: bytes
    data: dict


def packed(x: Tensor) -> str:
    """Return a tensor as base64 of little-endian numbers in its precision, complex ones as pairs.

    Example:
        >>> packed(torch.tensor([1.0 + 2.0j], dtype=torch.complex64))
        'AACAPwAAAEA='
    """
    x = torch.view_as_real(x) if x.is_complex() else x
    array = x.contiguous().numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def points(problem: nm.Problem, steps: int = STEPS) -> Tensor:
    """Return the parameters of a slider, (steps + 1, 1), both ends of the box included."""
    low, up = (float(x) for x in (problem.family.lower, problem.family.upper))
    p = low + (up - low) * torch.arange(steps + 1, dtype=torch.float64) / steps
    p[-1] = up
    return p[:, None]


def channel() -> Runs:
    """The inverse of a 3GPP channel's Gram matrix over a band, in pieces."""
    drawn = nm.wireless.cdl("C", users=8)
    problem = nm.Problem(drawn.gram(NOISE), nm.Inverse())
    # One table and one delay spread: the paths of all users have the same delays.
    (delays,) = drawn.delays.unique(dim=0)
    paths = drawn.coefficients.permute(1, 2, 0, 3).flatten(2)  # (L, antennas, streams)
    family = {
        "kind": "gram",
        "noise": NOISE,
        "shape": list(paths.shape),
        "delays": delays.tolist(),
        "coefficients": packed(paths),
    }
    label = {"name": "offset from the carrier", "unit": "MHz", "scale": 1e-6, "digits": 2}
    return _exported("channel", "The inverse of a channel's Gram matrix over a band", problem, family, label)


def chain() -> Runs:
    """The response of a chain of masses and springs over its resonances: one rational function."""
    n, double = MASSES, torch.float64
    side = torch.diag(torch.ones(n - 1, dtype=double), 1)
    K, M = 2 * torch.eye(n, dtype=double) - side - side.mT, torch.eye(n, dtype=double)
    # Powers of the angular frequency: K + i w C - w^2 M. The first mass has a dashpot of its own.
    C = DAMPING * K
    C[0, 0] += 2 * DAMPING
    terms = torch.stack([K.to(torch.complex128), 1j * C, -M])

    def stiffness(w: Tensor) -> Tensor:
        w = w[:, :, None]
        return terms[0] + w * terms[1] + w**2 * terms[2]

    problem = nm.Problem(nm.ParametricMatrix(stiffness, 0.2, 2.2, dtype=double), nm.Inverse())
    family = {"kind": "polynomial", "shape": list(terms.shape), "coefficients": packed(terms)}
    label = {"name": "angular frequency", "unit": "", "scale": 1, "digits": 3}
    return _exported("chain", "The response of a chain of masses over its resonances", problem, family, label)


def _exported(name: str, title: str, problem: nm.Problem, family: dict, label: dict) -> Runs:
    surrogate = nm.fit(problem, tol=TOLERANCE, seed=0, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.onnx")
        nm.export_onnx(surrogate, path)
        model = path.read_bytes()
    p = points(problem, STEPS // STRIDE)
    A, X = problem.family(p), surrogate(p)
    errors = problem.error(p, X)
    residual = torch.linalg.matrix_norm(torch.eye(A.shape[-1], dtype=A.dtype) - A @ X)
    # The axis of the curve: what lies far below the largest is cut.
    high = 10.0 ** math.ceil(math.log10(residual.max()))
    low = 10.0 ** math.floor(math.log10(max(float(errors.min()), 1e-6 * high)))
    # As colours: full strength is the largest entry at half of the parameters, so that poles hide no others, and the
    # largest difference at nine of ten.
    largest = [Y.real.double().abs().amax((1, 2)) for Y in (X, X - problem.exact(p).value)]
    most, apart = (float(x.quantile(part)) for x, part in zip(largest, (0.5, 0.9)))
    data = {
        "size": A.shape[-1],
        "lower": float(problem.family.lower),
        "upper": float(problem.family.upper),
        "steps": STEPS,
        "stride": STRIDE,
        "parameter": label,
        "pieces": [float(piece.lower[0]) for piece in surrogate.pieces],
        "rational": isinstance(surrogate.maps[0].embedding, nm.Rational),
        "most": most,
        "enlarged": 10.0 ** math.floor(math.log10(most / apart)),
        "axis": [low, high],
        "family": family,
        "model": base64.b64encode(model).decode(),
    }
    return Runs(name, title, problem, surrogate, model, data)


def still(runs: Runs, cell: int = 6) -> str:
    """Return the surrogate in the middle of its box as an SVG, for readers without JavaScript: real parts as colours.

    Args:
        runs: From `figure`.
        cell: Side of an entry in pixels.
    """
    X = runs.surrogate(points(runs.problem)[STEPS // 2 : STEPS // 2 + 1])[0].real.double().numpy()
    n, shade = len(X), np.rint(SHADES * np.sqrt(np.minimum(np.abs(X) / runs.data["most"], 1))).astype(int)
    cell = max(cell, 120 // n)
    shapes = []
    for sign, name in ((1, "positive"), (-1, "negative")):
        for k in range(1, SHADES + 1):
            places = np.argwhere((shade == k) & (np.sign(X) == sign))
            path = "".join(f"M{cell * j} {cell * i}h{cell}v{cell}h-{cell}z" for i, j in places)
            shapes += [f'<path class="{name}" fill-opacity="{k / SHADES:.2f}" d="{path}"/>'] * bool(path)
    side = cell * n
    return (
        f'<svg viewBox="0 0 {side} {side}" width="{side}" height="{side}" role="img" '
        f'aria-label="The surrogate in the middle of its box: {n} by {n} entries as colours">{"".join(shapes)}'
        f'<rect class="frame" x="0.5" y="0.5" width="{side - 1}" height="{side - 1}"/></svg>'
    )


SURROGATES: dict[str, Callable[[], Runs]] = {"channel": channel, "chain": chain}


def figure(name: str) -> Runs:
    """Fit and export a surrogate of the page.

    Raises:
        ValueError: For an unknown name.
    """
    if name not in SURROGATES:
        known = ", ".join(SURROGATES)
        raise ValueError(f"surrogate in a browser: expected one of {known}, got {name!r}; correct the name.")
    return SURROGATES[name]()


def runtime() -> Path | None:
    """Return the script of onnxruntime-web that the set-up has fetched, or None if it could not."""
    return next(Path(sys.prefix, "share").glob("onnxruntime-web-*.js"), None)
