"""Studies of the appendix on rank bounds: terms promised by data of A, several parameters, and inexact snapshots."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import neumatc as nm
from neumatc import nodes as nested
from studies import figures, low_rankness, provenance
from studies.provenance import Record, Table
from studies.texts import at_least, listed, two_digits

# The error at which numbers of terms are compared, the second of `low_rankness.summary`.
TOLERANCE = 1e-3
# Shares of the smallest singular value that a complex step may use up: the bound holds for each, the best is taken.
SHARES = np.linspace(0.04, 0.96, 24)
# Bisections for the widest ellipse: seven digits, the lower end is taken.
HALVINGS = 24
# Points at which interpolation is compared, many for each of the nodes.
FINE = 2001


@dataclass(frozen=True)
class Data:
    """What the bound needs to know of a family A on the interval [-1, 1].

    Attributes:
        x: Points in [-1, 1], sorted, shape (N,).
        smallest: The smallest singular values of A there, shape (N,).
        largest: An upper bound of the 2-norm of A on the interval.
        reach: c -> the distance s with g(s) = c, for a growth g with ||A(z) - A(x)||_2 <= g(|z - x|) for all complex z.
    """

    x: np.ndarray
    smallest: np.ndarray
    largest: float
    reach: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Bound:
    """A proved number of terms, the ellipse that it comes from, and the share of the smallest singular value used up.

    Attributes:
        terms: r, for which the relative error of r polynomial terms is at most the tolerance.
        rho: Sum of the half-axes of an ellipse with foci -1 and 1 inside of which A has no singular matrix.
        share: theta; inside the ellipse no singular value is below (1 - theta) times the least on the interval.
    """

    terms: int
    rho: float
    share: float


def affine(speed: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the reach of A = A0 + x A1: the growth is L s with L = ||A1||_2, the speed."""
    return lambda c: c / speed


def oscillating(speed: float, frequency: float) -> Callable[[np.ndarray], np.ndarray]:
    r"""Return the reach of a sum of waves: :math:`g(s) = (L / \Omega) (e^{\Omega s} - 1)`.

    By Bernstein's inequality the k-th derivative is at most L Omega^(k-1) on the real line, so this is Taylor's series.

    Args:
        speed: L, the largest 2-norm of A' on the whole real line.
        frequency: Omega, the highest angular frequency of A.
    """
    return lambda c: np.log1p(c * frequency / speed) / frequency


def envelope(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the largest of some lines changes from one to another, and its values there.

    Args:
        lines: Slopes, ascending, and intercepts, shape (N, 2).
    """
    kept: list[np.ndarray] = []
    for line in lines:
        # The last line kept is nowhere the largest if the new one passes it before it passes the one before.
        while len(kept) > 1 and meet(kept[-2], line) <= meet(kept[-2], kept[-1]):
            kept.pop()
        kept.append(line)
    places = np.array([meet(*pair) for pair in itertools.pairwise(kept)])
    return places, np.array([slope * place + level for (slope, level), place in zip(kept, places)])


def meet(first: np.ndarray, second: np.ndarray) -> float:
    """Return where two lines have the same value; of parallel ones, minus infinity if the second is not lower."""
    rise, fall = second[0] - first[0], first[1] - second[1]
    return fall / rise if rise > 0 else math.copysign(math.inf, fall)


def widest_ellipse(x: np.ndarray, radii: np.ndarray) -> float:
    """Return rho of the widest ellipse with foci -1 and 1 inside the union of discs around points of the interval.

    A point u + i v of its boundary, with half-axes a and b, is in the disc around x_i with radius r_i if
    2 x_i u + r_i^2 - x_i^2 > u^2 + v^2 = b^2 + u^2 / a^2. The largest left side is linear between finitely many places,
    the right side is convex. So it is enough to compare them at these places and at u = -a, a. Below a point of the
    boundary all points are closer to the interval, so they are covered as well.

    Args:
        x: Centres in [-1, 1], shape (N,).
        radii: Radii, shape (N,).

    Returns:
        The sum of the half-axes; 1, the interval itself, if the discs do not cover more.
    """
    lines = np.column_stack([2 * x, radii**2 - x**2])
    meets, values = envelope(lines)

    def covered(rho: float) -> bool:
        a, b = (rho + 1 / rho) / 2, (rho - 1 / rho) / 2
        inside = np.abs(meets) <= a
        ends = (np.outer([-a, a], lines[:, 0]) + lines[:, 1]).max(axis=1) - a**2
        return bool(np.all(values[inside] > b**2 + (meets[inside] / a) ** 2) and np.all(ends > 0))

    height = float(radii.max())
    low, high = 1.0, height + math.hypot(1, height)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if covered(middle) else (low, middle)
    return low


def terms_within(tolerance: float, rho: float, constant: float) -> float:
    r"""Return the least r with :math:`2\,c\,\rho^{-(r-1)} / (\rho - 1) \le \varepsilon`, infinite for rho = 1."""
    if rho <= 1:
        return math.inf
    return 1 + max(0, math.ceil(math.log(2 * constant / ((rho - 1) * tolerance)) / math.log(rho)))


def rank_bound(data: Data, tolerance: float, *, everywhere: bool = False) -> Bound:
    r"""Return a number of terms for which the relative error of the inverse is proved to be within a tolerance.

    For every share theta, A is regular in the discs around the points with radius reach(theta sigma_min), and its
    smallest singular value there at least (1 - theta) a, a the least of the given ones. In the widest ellipse inside,

    .. math:: \| A^{-1} \|_F \le \frac{\sqrt{n}}{(1 - \theta)\, a} , \quad \text{so} \quad
              e_r \le \frac{2 K}{(1 - \theta)\, a} \, \frac{\rho^{-(r-1)}}{\rho - 1}

    relative to :math:`\|A^{-1}\|_F \ge \sqrt{n} / K` with :math:`K \ge \|A\|_2` on the interval. The best share is
    taken. The error is that of the Chebyshev series, at every point and so in the mean.

    Args:
        data: Of the family.
        tolerance: epsilon.
        everywhere: Whether only the least singular value is used, for all points alike.
    """
    least = float(data.smallest.min())
    known = np.full_like(data.smallest, least) if everywhere else data.smallest
    best = (math.inf, 1.0, 0.0)
    for share in SHARES:
        rho = widest_ellipse(data.x, data.reach(share * known))
        best = min(best, (terms_within(tolerance, rho, data.largest / ((1 - share) * least)), rho, float(share)))
    return Bound(*best)


# Families on [-1, 1] with what is known of them


def strip(height: float, *, device: str = "cpu") -> nm.ParametricMatrix:
    """Return the family diag(x - x_j - i height) with x_j half a height apart in [-1, 1]: a pole above each."""
    count = math.ceil(4 / height) + 1
    poles = torch.linspace(-1, 1, count, dtype=torch.float64, device=device) + 1j * height
    return nm.ParametricMatrix(lambda p: torch.diag_embed(p - poles), [-1.0], [1.0], dtype=torch.float64, device=device)


def turning(share: float, size: int, *, device: str = "cpu") -> nm.ParametricMatrix:
    r"""Return :math:`I - q\, e^{i \pi x} C` with the cyclic shift C; along x its inverse has singular values as q^k."""
    shift = torch.eye(size, dtype=torch.complex128, device=device).roll(1, 0)
    identity = torch.eye(size, dtype=torch.complex128, device=device)

    def fn(p: Tensor) -> Tensor:
        return identity - share * torch.exp(1j * math.pi * p)[:, :, None] * shift

    return nm.ParametricMatrix(fn, [-1.0], [1.0], dtype=torch.float64, device=device)


def fewest_terms(share: float, tolerance: float) -> int:
    """Return a number of terms below which no map of the inverse of `turning` is within the tolerance, if q^n is."""
    return math.ceil(math.log(1 / (math.sqrt(2) * tolerance)) / math.log(1 / share))


def known(family: nm.ParametricMatrix, x: Tensor, reach: Callable[[np.ndarray], np.ndarray]) -> Data:
    """Return the data of a family with a known reach from its singular values at points x in [-1, 1], (N, 1).

    The norm is largest at these points up to what A can move between them: that is added.
    """
    p = torch.lerp(family.lower.double(), family.upper.double(), (x.to(family.lower) + 1) / 2)
    S = torch.linalg.svdvals(family(p).to("cpu"))
    order = x[:, 0].argsort().cpu()
    points = x[order.to(x.device), 0].cpu().numpy()
    apart = float(np.diff(points, prepend=-1.0, append=1.0).max())
    # No point of the interval is farther than this from one of them; A moves by at most g of it, found by doubling.
    slack = 0.0
    while float(reach(np.array(slack))) < apart:
        slack = 2 * slack + 1e-6
    return Data(points, S[order, -1].double().numpy(), float(S.max()) + slack, reach)


def waves_speed(family: nm.ParametricMatrix, period: float, terms: int, count: int = 512) -> float:
    """Return a bound of ||dA/dp||_2 on the real line for a trigonometric polynomial of the parameter.

    The largest value at equally spaced points of one period, divided by cos(pi K / N): between them a trigonometric
    polynomial of degree K is not larger (Ehlich and Zeller).

    Args:
        family: Of one parameter.
        period: Its period.
        terms: K, the degree.
        count: N, more than 2 K.
    """
    p = torch.arange(count, dtype=torch.float64, device=family.device)[:, None] * (period / count)
    slope = torch.func.vmap(torch.func.jacfwd(lambda q: family.fn(q[None])[0]))(p)[..., 0]
    return float(torch.linalg.matrix_norm(slope, 2).max()) / math.cos(math.pi * terms / count)


def examples(small: bool, seed: int, device: str) -> list[tuple[str, float, nm.ParametricMatrix, Callable]]:
    """Return families by name, a number that makes them harder as it falls, and their reach."""
    size = 16 if small else 48
    found = []
    for height in (0.5, 1.0) if small else (0.2, 0.5, 1.0):
        found.append(("ring", height, low_rankness.cyclic(size, height, device=device), affine(1.0)))
    for height in (0.3, 0.6) if small else (0.1, 0.2, 0.4):
        found.append(("strip", height, strip(height, device=device), affine(1.0)))
    for height in (0.2, 0.4) if small else (0.1, 0.2, 0.4):
        found.append(("one pair", height, low_rankness.cyclic(size - 2, 1.0, height, device=device), affine(1.0)))
    cycles, terms = 1.2, 8
    for shift in (3.0,) if small else (1.6, 2.0, 3.0):
        family = nm.families.trigonometric(size, terms, shift, seed, cycles=cycles, dtype=torch.float64, device=device)
        # The interval [0, 1] is two long on the scale of x.
        speed = waves_speed(family, terms / cycles, terms) / 2
        found.append(("waves", shift, family, oscillating(speed, math.pi * cycles)))
    return found


def data_of_A(record: Record) -> None:
    """Record bounds from data of A beside measured numbers of terms, as ``bounds``."""
    small, rows = record.profile == "smoke", []
    count = 129 if small else 385
    for name, hard, family, reach in examples(small, record.seed, record.device):
        X, x, w, condition = low_rankness.inverses(family, count)
        data = known(family, x.cpu(), reach)
        local, plain = (rank_bound(data, TOLERANCE, everywhere=everywhere) for everywhere in (False, True))
        polynomial = low_rankness.polynomial_errors(X, x, w)
        rows.append(
            {
                "family": name,
                "hard": hard,
                "condition": condition,
                "distance": float(reach(np.array(data.smallest.min()))),
                "local": local.terms,
                "everywhere": plain.terms,
                "log_rho": math.log(local.rho),
                "rate": low_rankness.rate(polynomial),
                "rank": low_rankness.ranks(X, w)[1],
                "polynomial": low_rankness.terms(polynomial, TOLERANCE),
            }
        )
    record.numbers["bounds"] = {"rows": rows, "tolerance": TOLERANCE, "nodes": count, "least": []}
    for share in (0.5, 0.7) if small else (0.5, 0.8, 0.9):
        family = turning(share, math.ceil(math.log(TOLERANCE) / math.log(share)), device=record.device)
        X, _, w, condition = low_rankness.inverses(family, count)
        entry = {"condition": condition, "proved": fewest_terms(share, TOLERANCE), "rank": low_rankness.ranks(X, w)[1]}
        record.numbers["bounds"]["least"].append(entry)


def bounds_table(record: Record) -> Table:
    """Tabulate bounds and measured numbers of terms, and glue what the text says about them."""
    n = record.numbers["bounds"]
    rows = n["rows"]
    provenance.glue("rb-nodes", n["nodes"])
    provenance.glue("rb-tolerance", n["tolerance"])
    for name, key in (("ring", "ring"), ("strip", "strip"), ("one pair", "pair"), ("waves", "waves")):
        own = [row for row in rows if row["family"] == name]
        hardest = own[0]
        provenance.glue(f"rb-{key}-rank", hardest["rank"])
        for what in ("local", "everywhere", "polynomial"):
            provenance.glue(f"rb-{key}-{what}", hardest[what])
        provenance.glue(f"rb-{key}-least", min(row["local"] / row["polynomial"] for row in own))
        provenance.glue(f"rb-{key}-most", two_digits(max(row["local"] / row["polynomial"] for row in own)))
        provenance.glue(f"rb-{key}-rank-least", min(row["rank"] / row["polynomial"] for row in own))
    poles = [row for row in rows if row["family"] != "waves"]
    for key in ("local", "everywhere"):
        beside = [row[key] / row["polynomial"] for row in poles]
        provenance.glue(f"rb-{key}-least", min(beside))
        provenance.glue(f"rb-{key}-most", two_digits(max(beside)))
    for key, digits in (("condition", ".0f"), ("proved", "d"), ("rank", "d")):
        provenance.glue(f"rb-least-{key}", listed([f"{entry[key]:{digits}}" for entry in n["least"]]))
    header = ["family", "height or shift", "condition number", "distance", "bound, least value only"]
    return Table(
        [*header, "bound, values along the interval", "polynomial terms", "rank"],
        [
            [
                row["family"],
                f"{row['hard']:g}",
                f"{row['condition']:.0f}",
                f"{row['distance']:.2g}",
                *(low_rankness.counted(row[key], 10**9) for key in ("everywhere", "local", "polynomial", "rank")),
            ]
            for row in rows
        ],
    )


def bounds_figure(record: Record) -> Figure:
    """Plot bounds and measured numbers of terms against the inverse of the distance that A allows."""
    rows = record.numbers["bounds"]["rows"]
    names = list(dict.fromkeys(row["family"] for row in rows))
    figure, panels = plt.subplots(2, 2, figsize=(figures.WIDTH, 6.0), sharey=True)
    for axes, name in zip(panels.flat, names):
        own = [row for row in rows if row["family"] == name]
        for key, line, colour, label in (
            ("everywhere", "v:", figures.GREY, "bound, least value only"),
            ("local", "v-", figures.RED, "bound, values along the interval"),
            ("polynomial", "o-", figures.BLUE, "polynomial terms"),
            ("rank", "s--", figures.GREEN, "rank"),
        ):
            axes.loglog(
                [1 / row["distance"] for row in own], [row[key] for row in own], line, color=colour, label=label
            )
        axes.set_title(name, fontsize=10)
        places = [1 / row["distance"] for row in own]
        axes.set_xticks(places, [f"{place:.2g}" for place in places])
        axes.minorticks_off()
    for axes in panels[1]:
        axes.set_xlabel("$1 / d$, inverse distance")
    for axes in panels[:, 0]:
        axes.set_ylabel("terms for 1e-3")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    return figure


# Several parameters


def best_monomials(sizes: Sequence[float], tolerance: float) -> int:
    r"""Return how many terms of the Neumann series of :math:`(I + \sum_j x_j B_j)^{-1}` leave a relative error.

    With b_j = ||B_j||_2 and their sum beta below 1, the term of x^k is at most (|k|! / k!) b^k, all terms of degree m
    together beta^m. The largest ones are kept until the others sum up to at most the tolerance over 1 + beta.

    Args:
        sizes: The b_j.
        tolerance: epsilon, relative to the inverse in the 2-norm or the Frobenius norm, at every x in [-1, 1]^d.
    """
    beta, d = math.fsum(sizes), len(sizes)
    allowed = tolerance / (1 + beta)
    degree = 1
    while beta**degree / (1 - beta) > allowed / 2:
        degree += 1
    logs = [math.log(b) for b in sizes]
    values = []
    for m in range(degree):
        for chosen in itertools.combinations(range(m + d - 1), d - 1):  # bars between m stars: exponents k, |k| = m
            bars = (-1, *chosen, m + d - 1)
            k = [right - left - 1 for left, right in itertools.pairwise(bars)]
            values.append(math.exp(math.lgamma(m + 1) + sum(i * b - math.lgamma(i + 1) for i, b in zip(k, logs))))
    kept = np.cumsum(np.sort(values)[::-1])
    return int((1 / (1 - beta) - kept > allowed).sum()) + 1


def affine_family(sizes: Sequence[float], n: int, seed: int, device: str) -> nm.ParametricMatrix:
    """Return I + sum_j x_j B_j on [-1, 1]^d, with random B_j of 2-norms b_j."""
    generator = torch.Generator().manual_seed(seed)
    B = torch.randn(len(sizes), n, n, generator=generator, dtype=torch.float64)
    B = B * (torch.tensor(sizes, dtype=torch.float64) / torch.linalg.matrix_norm(B, 2))[:, None, None]
    B, identity = B.to(device), torch.eye(n, dtype=torch.float64, device=device)
    box = {"lower": [-1.0] * len(sizes), "upper": [1.0] * len(sizes)}
    return nm.ParametricMatrix(
        lambda p: identity + torch.einsum("bd,dij->bij", p, B), **box, dtype=torch.float64, device=device
    )


def many_parameters(record: Record) -> None:
    """Record proved and measured numbers of terms by the number of parameters, as ``several``."""
    small = record.profile == "smoke"
    n, samples, rows = (4, 400, []) if small else (12, 3000, [])
    for name in ("equal", "decaying"):
        for d in (1, 2) if small else (1, 2, 3, 4, 6)[: 4 if name == "equal" else 5]:
            # Their sum grows with d if they are equal, and stays below 4 / 3 of the first if they decay.
            sizes = [0.12] * d if name == "equal" else [0.12 * 4.0**-j for j in range(d)]
            family = affine_family(sizes, n, record.seed, record.device)
            q = nm.sampling.sobol(samples, family.lower, family.upper, record.seed)
            X, _ = nm.linalg.inverse(family(q))
            weights = torch.full((samples,), 1 / samples, dtype=torch.float64, device=X.device)
            rank, half = (low_rankness.ranks(Y, w)[1] for Y, w in ((X, weights), (X[::2], 2 * weights[::2])))
            bound = best_monomials(sizes, TOLERANCE)
            rows.append({"sizes": name, "d": d, "sum": sum(sizes), "bound": bound, "rank": rank, "half": half})
    record.numbers["several"] = {"rows": rows, "samples": samples, "n": n}


def several_table(record: Record) -> Table:
    """Tabulate numbers of terms by the number of parameters."""
    n = record.numbers["several"]
    provenance.glue("rb-several-samples", n["samples"])
    provenance.glue("rb-several-size", n["n"])
    provenance.glue("rb-several-entries", n["n"] ** 2)
    for name in ("equal", "decaying"):
        last = [row for row in n["rows"] if row["sizes"] == name][-1]
        for key in ("d", "bound", "rank"):
            provenance.glue(f"rb-{name}-{key}", last[key])
        verdict = "so this bound says nothing." if last["bound"] >= n["n"] ** 2 else "the bound is below that."
        provenance.glue(f"rb-{name}-verdict", verdict)
    return Table(
        ["sizes $b_j$", "$d$", r"$\beta = \sum_j b_j$", "bound", "rank", "rank from half the samples"],
        [
            [row["sizes"], str(row["d"]), f"{row['sum']:.2f}", *(str(row[key]) for key in ("bound", "rank", "half"))]
            for row in n["rows"]
        ],
    )


# Inexact snapshots


def cardinal(at: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the values at x of Lagrange's polynomials for nodes: 1 at their own node, 0 at the others.

    Args:
        at: Nodes, shape (n,).
        x: Points, shape (N,).

    Returns:
        Shape (N, n), by the first barycentric formula: the sum in the second one cancels for nodes with a large
        Lebesgue constant.
    """
    # Products of distances over the capacity of the interval, so that they do not underflow.
    apart = 2 * (at[:, None] - at) + np.eye(len(at))
    weights = 1 / apart.prod(axis=1)
    away = 2 * (x[:, None] - at)
    hit = away == 0
    values = away.prod(axis=1, keepdims=True) * weights / np.where(hit, 1.0, away)
    return np.where(hit.any(axis=1, keepdims=True), hit.astype(float), values)


def lebesgue(at: np.ndarray) -> tuple[float, float]:
    """Return the Lebesgue constant of nodes, and where it is attained, on a fine grid between them."""
    x = np.cos(np.linspace(0, np.pi, FINE))
    sums = np.abs(cardinal(at, x)).sum(axis=1)
    return float(sums.max()), float(x[sums.argmax()])


def grown(count: int) -> np.ndarray:
    """Return nodes as a piece collects them: 9, then 17, 33 and so on as far as they go, and then the rest at once."""
    taken, nothing = np.empty(0), np.empty(0)
    for total in (9, 17, 33, 65, count):
        if len(taken) < total <= count:
            more = nested.added(total - len(taken), taken, nothing, nothing)
            taken = np.concatenate([taken, [x for x, _ in more]])
    return taken


def of_pieces(fitted: nm.Surrogate) -> list[np.ndarray]:
    """Return the nodes of each piece of a fit of one parameter, in the variable of its polynomials, on [-1, 1]."""
    (own,) = fitted.maps
    # A piece with fewer nodes than another has weights of zero.
    pairs = zip(own.phi_nodes[:, 0].cpu().numpy(), own.phi_bary[:, 0].cpu().numpy())
    return [nodes[weights != 0].astype(float) for nodes, weights in pairs]


def fitted_constants(small: bool, seed: int, device: str) -> list[dict[str, object]]:
    """Return of some fits the piece whose Lebesgue constant is the largest beside that of as many zeros."""
    waves = nm.families.trigonometric(size=16 if small else 64, seed=seed, device=device)
    cases = [("trigonometric", tol, waves) for tol in ((1e-1, 1e-2) if small else (1e-1, 1e-2, 1e-3))]
    if not small:
        for spread in (30, 100):
            channel = nm.wireless.cdl("C", users=8, delay_spread=spread * 1e-9, seed=seed, device=device)
            cases.append((f"CDL-C, {spread} ns", 1e-3, channel.gram(0.1)))
    rows = []
    for name, tol, family in cases:
        fitted = nm.fit(nm.Problem(family, nm.Inverse()), tol=tol, seed=seed, progress=False)
        own = [(lebesgue(at)[0], len(at)) for at in of_pieces(fitted)]
        worst, count = max(own, key=lambda pair: pair[0] / lebesgue(zeros(pair[1]))[0])
        row = {"name": name, "tol": tol, "pieces": len(own), "nodes": count}
        rows.append(row | {"constant": worst, "zeros": lebesgue(zeros(count))[0]})
    return rows


def zeros(n: int) -> np.ndarray:
    """Return Chebyshev points of the first kind, the largest first."""
    return np.cos((np.arange(n) + 0.5) * np.pi / n)


NODES: dict[str, Callable[[int], np.ndarray]] = {
    "zeros (closed form)": zeros,
    "extrema (Lobatto)": lambda n: np.cos(np.arange(n) * np.pi / (n - 1)),
    "nested (pieces)": grown,
    "equally spaced": lambda n: np.linspace(-1, 1, n),
}


# Numbers of nodes that pieces have most often, between 9 and 17; and the two ways that are compared there.
BETWEEN = tuple(range(10, 17))
WAYS = (("own", "nested (pieces)"), ("zeros", "zeros (closed form)"))


def logarithmic(n: int) -> float:
    """Return the bound (2 / pi) log n + 1 of the Lebesgue constants of n zeros or n extrema."""
    return 2 / math.pi * math.log(n) + 1


def quadrature_factors(n: int, stretch: float = 0.0) -> tuple[float, float]:
    r"""Return the least and largest :math:`\int |q|^2 / \sum_i w_i |q(x_i)|^2` over polynomials of degree n - 1.

    The weights are Fejer's; with a stretch a the polynomials are those of y, x = arcsin(a y) / arcsin(a). The mean is
    that of the uniform probability of x.

    Args:
        n: Nodes.
        stretch: a.
    """
    _, w = nm.sampling.design(n, 1, stretch=stretch)
    y, v = np.polynomial.legendre.leggauss(4 * n)
    v = v / np.sqrt(1 - (stretch * y) ** 2)
    L = cardinal(np.cos((np.arange(n) + 0.5) * np.pi / n), y) / np.sqrt(w.numpy())
    values = np.linalg.eigvalsh((L * (v / v.sum())[:, None]).T @ L)
    return float(values[0]), float(values[-1])


class Inexact(nm.Inverse):
    """The inverse with an error of a given size, in the Frobenius norm, and a sign for each of the matrices.

    Args:
        error: The error E, added to the inverses times their signs, shape (n, n).
        signs: Signs in the order in which the matrices come, shape (N,); of other numbers of matrices all are 1.
    """

    def __init__(self, error: Tensor, signs: Tensor) -> None:
        object.__setattr__(self, "error", error)
        object.__setattr__(self, "signs", signs)

    def exact(self, A: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the inverses with their errors, and which matrices are singular."""
        (X,), failed = super().exact(A)
        signs = self.signs if len(self.signs) == len(A) else torch.ones_like(self.signs[:1])
        return (X + signs.to(X)[:, None, None] * self.error.to(X),), failed


def stability(record: Record) -> None:
    """Record Lebesgue constants, and errors of interpolation from inexact snapshots, as ``stability``."""
    small = record.profile == "smoke"
    counts = (9, 17, 33) if small else (9, 17, 33, 65)
    constants = {name: [lebesgue(make(n))[0] for n in counts] for name, make in NODES.items()}
    n, errors = 40, []
    family = low_rankness.cyclic(16, 1.0, device=record.device)
    E = torch.randn(16, 16, generator=torch.Generator().manual_seed(record.seed), dtype=torch.float64)
    x = torch.linspace(-1, 1, FINE, dtype=torch.float64, device=record.device)[:, None]
    truth = nm.Problem(family, nm.Inverse()).exact(x).value
    at = NODES["zeros (closed form)"](n)[::-1].copy()  # as nm.peers.chebyshev orders them
    constant, worst = lebesgue(at)
    signs = {"worst signs": np.sign(cardinal(at, np.array([worst]))[0])}
    signs["random signs"] = np.random.default_rng(record.seed).choice([-1.0, 1.0], n)
    for size in (1e-2, 1e-5, 1e-8):
        for name, sign in signs.items():
            operation = Inexact(E * (size / torch.linalg.matrix_norm(E)), torch.from_numpy(sign))
            away = torch.linalg.matrix_norm(nm.peers.chebyshev(nm.Problem(family, operation), n)(x) - truth)
            errors.append({"size": size, "signs": name, "largest": away.max(), "mean": away.square().mean().sqrt()})
    stretches = [nm.sampling.widest_stretch(64, 4 * torch.finfo(t).eps) for t in (torch.float32, torch.float64)]
    record.numbers["stability"] = {
        "counts": counts,
        "constants": constants,
        "logarithmic": [logarithmic(m) for m in counts],
        "between": {"counts": BETWEEN, **{key: [lebesgue(NODES[name](m))[0] for m in BETWEEN] for key, name in WAYS}},
        "fits": fitted_constants(small, record.seed, record.device),
        "nodes": n,
        "constant": constant,
        "errors": errors,
        "factors": [quadrature_factors(64, stretch) for stretch in (0.0, *stretches)],
    }


def nested_words(numbers: Mapping[str, object]) -> str:
    """Return in sentences what the constants of nested nodes are beside those of as many zeros.

    Args:
        numbers: ``stability`` of the record.
    """
    counts, own, theirs = numbers["counts"], *(numbers["constants"][name] for _, name in WAYS)
    good = [str(count) for count, a, b in zip(counts, own, theirs) if a <= b]
    many = [f"{a:.1f} with {n} nodes ({a / b:.1f} times)" for n, a, b in zip(counts, own, theirs) if a > b]
    between = numbers["between"]
    least, most = (
        f"{a:.1f} with {n} nodes ({a / b:.1f} times)"
        for n, a, b in (list(zip(between["counts"], between["own"], between["zeros"]))[i] for i in (0, -1))
    )
    worst = max(numbers["fits"], key=lambda row: row["constant"] / row["zeros"])
    return (
        f"Beside those of as many Chebyshev nodes their constants are no larger with {listed(good)} nodes, each set "
        f"grown at once from the one before. Numbers in between are not as good: grown from nine, the constants go "
        f"from {least} to {most}. The worst piece of the fits that we looked at has {worst['constant']:.1f} with "
        f"{worst['nodes']} nodes ({worst['constant'] / worst['zeros']:.1f} times; {worst['name']}, tolerance "
        f"{worst['tol']:g})." + f" Many nodes have more: {listed(many)}." * bool(many)
    )


def constants_table(record: Record) -> Table:
    """Tabulate Lebesgue constants, and glue the factors between the mean and its quadrature."""
    n = record.numbers["stability"]
    for name, (least, largest) in zip(("plain", "single", "double"), n["factors"]):
        provenance.glue(f"rb-factor-{name}", math.sqrt(largest / least))
    provenance.glue("rb-nested", nested_words(n))
    rows = [*n["constants"].items(), (r"$\tfrac{2}{\pi} \log n + 1$", n["logarithmic"])]
    return Table(
        ["nodes", *(f"$n = {count}$" for count in n["counts"])],
        [[name, *(f"{value:.2f}" if value < 100 else f"{value:.1e}" for value in values)] for name, values in rows],
    )


def errors_table(record: Record) -> Table:
    """Tabulate errors of interpolation from inexact snapshots, as multiples of the error of a snapshot."""
    n = record.numbers["stability"]
    provenance.glue("rb-lebesgue", n["constant"])
    provenance.glue("rb-lebesgue-above", at_least(n["constant"]))
    provenance.glue("rb-lebesgue-nodes", n["nodes"])
    for key, signs in (("worst", "worst signs"), ("random", "random signs")):
        own = [e for e in n["errors"] if e["signs"] == signs]
        provenance.glue(f"rb-{key}-largest", max(e["largest"] / e["size"] for e in own))
        provenance.glue(f"rb-{key}-mean", max(e["mean"] / e["size"] for e in own))
    return Table(
        ["error of a snapshot", "signs", "largest error, in multiples of it", "mean error, in multiples of it"],
        [
            [f"{e['size']:.0e}", e["signs"], f"{e['largest'] / e['size']:.2f}", f"{e['mean'] / e['size']:.2f}"]
            for e in n["errors"]
        ],
    )


def check(record: Record) -> None:
    """Raise an AssertionError where a measurement contradicts what is proved."""
    n = record.numbers
    for row in n["bounds"]["rows"]:
        assert row["rank"] <= row["polynomial"] <= row["local"] <= row["everywhere"], f"a bound holds: {row}"
        # The chapter *Low-rankness* says so of families in which no few poles stand out.
        few = record.profile == "smoke" or row["family"] == "one pair"
        assert few or row["polynomial"] < low_rankness.FEW_MORE * row["rank"], f"polynomials need few more terms: {row}"
    for entry in n["bounds"]["least"]:
        assert entry["proved"] <= entry["rank"], f"a lower bound holds: {entry}"
    for row in n["several"]["rows"]:
        assert row["rank"] <= row["bound"], f"a bound holds: {row}"
    stability = n["stability"]
    for name in ("zeros (closed form)", "extrema (Lobatto)"):
        assert all(a <= b for a, b in zip(stability["constants"][name], stability["logarithmic"])), name
    pairs = [(c, *own) for c, *own in zip(stability["counts"], *(stability["constants"][name] for _, name in WAYS))]
    assert all(own <= theirs for count, own, theirs in pairs if count <= 17), "9 and 17 nodes are as good"
    between = [own / theirs for own, theirs in zip(stability["between"]["own"], stability["between"]["zeros"])]
    assert min(between) > 1 and max(between) > 2, "the page of proofs: numbers between them are several times as large"
    if record.profile != "smoke":
        worst = max(row["constant"] / row["zeros"] for row in stability["fits"])
        assert worst > 2, "the page of proofs: so are those of pieces of real fits"
    for entry in stability["errors"]:
        # Beside the error of the snapshots there is that of interpolation, far below the smallest of them.
        assert entry["largest"] <= 1.001 * stability["constant"] * entry["size"], "Lebesgue's constant bounds"
    worst = max(e["largest"] / e["size"] for e in stability["errors"] if e["signs"] == "worst signs")
    assert worst > 0.99 * stability["constant"], "and is attained"
