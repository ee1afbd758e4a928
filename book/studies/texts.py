"""Numbers as the text and the tables of several chapters write them."""

from __future__ import annotations

import math


def title(name: str) -> str:
    """Return the name of a channel model as 3GPP writes it.

    Example:
        >>> title("cdl_a")
        'CDL-A'
    """
    return name.upper().replace("_", "-")


def two_digits(value: float) -> float:
    """Round to two digits: wall times repeat no better.

    Example:
        >>> two_digits(1234.5)
        1200.0
    """
    return float(f"{value:.1e}") if math.isfinite(value) else value


def in_matrices(value: float) -> str:
    """Return a break-even point in words.

    Example:
        >>> in_matrices(1234.5), in_matrices(math.inf)
        ('1,200 matrices', 'no number of matrices')
    """
    return f"{two_digits(value):,.0f} matrices" if math.isfinite(value) else "no number of matrices"


def times(ratio: float) -> str:
    """Return a ratio of times with two digits.

    Example:
        >>> times(0.123), times(1.26), times(12.6), times(12345)
        ('0.12', '1.3', '13', '12,000')
    """
    return f"{ratio:.1f}" if 1 <= ratio < 9.95 else f"{float(f'{ratio:.1e}'):,g}"
