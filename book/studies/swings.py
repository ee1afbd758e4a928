"""How often the entries of radio matrices go up and down, beside delay spread times bandwidth, which page one counts.

Nothing is timed. `python -m studies.measurements swings` publishes the record, which page one and the glossary read.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

import neumatc as nm
from studies import texts

Row = dict[str, object]
MODELS, SPREADS, DRAWS, NOISE = ("A", "C"), (30e-9, 100e-9, 300e-9), 3, 0.1
# Matrices whose entries are counted.
MATRICES = ("H", "Gram", "inverse")


def ups(values: Tensor) -> float:
    """Return how often an entry passes its mean upwards, the median over real and imaginary parts that vary.

    Args:
        values: Matrices along the parameter, in order, (B, m, n).

    Example:
        >>> x = torch.linspace(0, 1, 101)[:, None, None]
        >>> ups(torch.sin(6 * torch.pi * (x - 0.01))), ups(torch.ones(5, 1, 1))
        (3.0, 0.0)
    """
    parts = (torch.view_as_real(values) if values.is_complex() else values).flatten(1).double()
    above = parts > parts.mean(dim=0)
    counts = (above[1:] & ~above[:-1]).sum(dim=0)[parts.std(dim=0) > 1e-6 * parts.std()]
    return float(counts.double().median()) if len(counts) else 0.0


def counted(model: str, spread: float, seed: int, subcarriers: int = 3276) -> Row:
    """Count for the uplink of eight users with four antennas each, 64 x 32, and what the rows on inverses are of."""
    channel = nm.wireless.cdl(model, users=8, delay_spread=spread, seed=seed, subcarriers=subcarriers)
    f, gram = channel.frequencies, channel.gram(NOISE)
    found = {"H": channel(f), "Gram": gram(f), "inverse": nm.Problem(gram, nm.Inverse()).exact(f).value}
    swings = spread * float(channel.upper - channel.lower)
    return {"model": model, "spread": spread, "seed": seed, "swings": swings} | {k: ups(x) for k, x in found.items()}


def run(draws: int = DRAWS, **settings: object) -> list[Row]:
    """Count for all models, delay spreads and draws."""
    return [counted(model, spread, seed, **settings) for model in MODELS for spread in SPREADS for seed in range(draws)]


def shares(rows: Sequence[Row], model: str, matrix: str) -> list[float]:
    """Return of each delay spread how many times as often entries go up and down as swings say, the median of draws."""
    own = [row for row in rows if row["model"] == model]
    spreads = sorted({row["spread"] for row in own})
    return [statistics.median(x[matrix] / x["swings"] for x in own if x["spread"] == spread) for spread in spreads]


def said(rows: Sequence[Row]) -> str:
    """Return in words by what to multiply the ups and downs of one's Gram matrix: the range over the delay spreads.

    Example:
        >>> row = {"model": "C", "spread": 3e-8, "swings": 3.0, "H": 2.0, "Gram": 1.0, "inverse": 1.0}
        >>> said([row, row | {"model": "A", "Gram": 0.5}])
        '3.0 on CDL-C and 6.0 on CDL-A'
    """
    models = sorted({row["model"] for row in rows}, reverse=True)
    factors = {model: texts.ratios_between(1 / x for x in shares(rows, model, "Gram")) for model in models}
    return texts.listed([f"{factor} on CDL-{model}" for model, factor in factors.items()])
