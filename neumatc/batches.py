"""Families that are evaluated as a batch: on a GPU calls cost more than what they compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neumatc.families import ParametricMatrix


def alike(families: Sequence[ParametricMatrix]) -> bool:
    """Whether families have one box and one grid."""
    first, grids = families[0], [family.box.ticks or [family._points] for family in families]
    same = all(family.box == first.box and family.count == first.count for family in families)
    return same and all(all(map(equal, own, grids[0])) for own in grids)


def equal(x: Tensor | None, y: Tensor | None) -> bool:
    """Whether both are None, or the same numbers."""
    return x is y or (None not in (x, y) and torch.equal(x, y))


def at_once(families: Sequence[ParametricMatrix]) -> Callable[[Tensor], Tensor] | None:
    """Return p (B, d) -> A (B, N, m, n) of N families that are `alike`, in about as many calls as one, or None."""
    own = families[0]._at_once
    able = own and len(families) > 1 and len({*map(type, families)}) == 1 and alike(families)
    return own(families) if able else None
