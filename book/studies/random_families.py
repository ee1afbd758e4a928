"""Two hundred random families: where a report says that a tolerance is met, is it, and where not, does it say where?

``python -m studies.random_families [--count N] [--seed S] [--only INDEX ...]`` prints the table and the offenders. A
family is drawn from its index, the seed and the largest size alone, so an offender can be run again by its index.
"""

from __future__ import annotations

import argparse
import math
import statistics
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import neumatc as nm

# The contract of `nm.fit`: at most this share of the box, uniform on its scales, exceeds the tolerance.
TARGET = 0.01
# Bars: of the fits that are met, the share with more than twice the target, and the largest share of any.
MOST_OFFENDERS, MOST_FAILING = 1 / 50, 0.05
# Fresh parameters at which a fit is judged: the standard error of a share of 2 % is 0.14 %.
FRESH = 10_000
# Numbers in the matrices that are judged at once, which bounds the memory to some 100 MB.
BLOCK = 2**20

KINDS = ("smooth", "oscillating", "resonances", "poles", "kinks", "steps")
# Width of a resonance, in units of the box.
WIDTH = 1e-3
# Largest sizes: of operations that cost many products or whose residual takes an exact solve, of two parameters, else.
DEAR_SIZE, PLANE_SIZE, LARGEST_SIZE = 16, 24, 64


@dataclass(frozen=True)
class Sort:
    """An operation, and the matrices that it takes.

    Attributes:
        make: From n and a number in [0, 1) to the operation.
        structure: ``"tall"`` (m >= n), ``"square"``, ``"positive"``, ``"hermitian"``, or of distinct eigenvalues or
            singular values: ``"spread"``; ``"beside"``: with a right-hand side.
        dear: Whether it takes only small matrices here.
    """

    make: Callable[[int, float], nm.Operation]
    structure: str
    dear: bool = False


def _few(n: int, u: float) -> int:
    """A number of leading vectors, from 1 to 4 and below n."""
    return 1 + int(u * min(4, n - 1))


SORTS = {
    "inverse": Sort(lambda n, u: nm.Inverse(), "square"),
    "regularized inverse": Sort(lambda n, u: nm.RegularizedInverse(noise=0.1), "tall"),
    "LMMSE": Sort(lambda n, u: nm.LMMSE(noise=0.1), "tall"),
    "RZF": Sort(lambda n, u: nm.RZF(noise=0.1), "wide"),
    "pseudo-inverse": Sort(lambda n, u: nm.PseudoInverse(), "tall"),
    "solve": Sort(lambda n, u: nm.Solve(), "beside"),
    "log-determinant": Sort(lambda n, u: nm.LogDet(), "square", True),
    "exponential": Sort(lambda n, u: nm.MatrixFunction("exp"), "square", True),
    "square root": Sort(lambda n, u: nm.MatrixFunction("sqrt"), "positive", True),
    "inverse root": Sort(lambda n, u: nm.MatrixFunction("inverse_sqrt"), "positive", True),
    "logarithm": Sort(lambda n, u: nm.MatrixFunction("log"), "positive", True),
    "Cholesky": Sort(lambda n, u: nm.Cholesky(), "positive"),
    "QR": Sort(lambda n, u: nm.QR(), "tall"),
    "polar": Sort(lambda n, u: nm.Polar(), "tall", True),
    "SVD": Sort(lambda n, u: nm.SVD(rank=_few(n, u)), "spread"),
    "eigh": Sort(lambda n, u: nm.Eigh(rank=_few(n, u)), "hermitian"),
    "eig": Sort(lambda n, u: nm.Eig(), "spread square", True),
    "subspace": Sort(lambda n, u: nm.Subspace(rank=_few(n, u)), "spread"),
    "projector": Sort(lambda n, u: nm.Projector(rank=_few(n, u)), "spread"),
}


@dataclass(frozen=True)
class Sample:
    """A random family with an operation and a tolerance.

    Attributes:
        index: Its number; with the seed it determines the rest.
        kind: One of `KINDS`.
        sort: A key of `SORTS`.
        problem: The problem.
        tol: The tolerance.
        log: Whether the first axis is logarithmic.
    """

    index: int
    kind: str
    sort: str
    problem: nm.Problem
    tol: float
    log: bool

    @property
    def dimension(self) -> int:
        """Number of parameters."""
        return self.problem.family.dimension

    def fresh(self, count: int) -> Tensor:
        """Draw parameters uniformly on the scales of the box."""
        family = self.problem.family
        low, up = family.lower.double(), family.upper.double()
        u = torch.from_numpy(np.random.default_rng([self.index, count]).uniform(size=(count, self.dimension)))
        p = torch.lerp(low, up, u)
        if self.log:
            p[:, 0] = torch.exp(torch.lerp(low[0].log(), up[0].log(), u[:, 0]))
        return p.to(family.lower.dtype).clamp(family.lower, family.upper)


def _profiles(kind: str, d: int, rng: np.random.Generator) -> list[Callable[[Tensor], Tensor]]:
    """Return functions of x in the unit cube (B, d), of modulus at most one: smooth ones and those of the kind.

    What is not smooth happens along an axis or across it, in the direction of a random unit vector.
    """

    def wave(cycles: float) -> Callable[[Tensor], Tensor]:
        c = rng.normal(size=d)
        c, phase = torch.from_numpy(2 * np.pi * cycles * c / np.linalg.norm(c)), rng.uniform(0, 2 * np.pi)
        return lambda x: torch.cos(x @ c + phase)

    smooth = [wave(rng.uniform(0.2, 1.0)) for _ in range(2)]
    if kind == "smooth":
        return smooth
    if kind == "oscillating":
        low, up = (5, 40) if d == 1 else (2, 6)
        return [*smooth[:1], *(wave(rng.uniform(low, up)) for _ in range(2))]
    along = np.eye(d)[rng.integers(d)] if rng.uniform() < 0.5 else np.abs(rng.normal(size=d))
    direction = torch.from_numpy(along / along.sum())  # so that x @ direction runs from 0 to 1

    def made(place: float, far: float) -> Callable[[Tensor], Tensor]:
        def profile(x: Tensor) -> Tensor:
            u = x @ direction
            if kind == "resonances":
                return WIDTH**2 / ((u - place) ** 2 + WIDTH**2)
            if kind == "poles":
                return far / (u + far) if place < 0.5 else far / (1 + far - u)
            return (u - place).abs() if kind == "kinks" else torch.where(u < place, -1.0, 1.0).to(u.dtype)

        return profile

    count = int(rng.integers(1, 4))
    return smooth + [made(rng.uniform(0.05, 0.95), 10 ** rng.uniform(-2.5, -1)) for _ in range(count)]


def _coefficients(structure: str, m: int, n: int, count: int, is_complex: bool, rng: np.random.Generator):
    """Return the matrix around which the family varies, and ``count`` others whose spectral norms have a fixed sum.

    That sum is below the least singular value or eigenvalue of the first, where the operation needs that.
    """

    def gaussian(*shape: int) -> np.ndarray:
        real = rng.normal(size=shape)
        return real + 1j * rng.normal(size=shape) if is_complex else real

    waves = gaussian(count, m, n)
    hermitian = structure in ("positive", "hermitian")
    if hermitian:
        waves = waves + np.swapaxes(waves.conj(), 1, 2)
    shares = rng.uniform(0.5, 1.0, size=count)
    shares[2:] *= 3  # what is not smooth is not a trifle
    spread = "spread" in structure or structure == "hermitian"
    shares *= (0.3 if spread else 0.8) / shares.sum()
    waves *= (shares / np.linalg.norm(waves, 2, axis=(1, 2)))[:, None, None]
    left = np.linalg.qr(gaussian(m, m))[0]
    right = left if hermitian else np.linalg.qr(gaussian(n, n))[0]
    values = np.linspace(2, 1, min(m, n)) if spread else np.ones(min(m, n))
    return (left[:, : len(values)] * values) @ right.conj().T[: len(values)], waves


def _shape(structure: str, n: int, rng: np.random.Generator) -> tuple[int, int]:
    other = (
        n
        if structure in ("square", "positive", "hermitian", "spread square", "beside")
        else int(n + rng.integers(0, n + 1))
    )
    return (n, other) if structure == "wide" else (other, n)


def pair(index: int, seed: int) -> tuple[str, str]:
    """Return kind and sort: shuffled pairs of all, so that every pair comes once in each round of them."""
    pairs = [(kind, sort) for kind in KINDS for sort in SORTS]
    turn, place = divmod(index, len(pairs))
    return pairs[int(np.random.default_rng([seed, turn]).permutation(len(pairs))[place])]


def sample(index: int, seed: int = 0, size: int = LARGEST_SIZE) -> Sample:
    """Draw a family with its operation and tolerance; the smaller side of its matrices is at most ``size``."""
    rng = np.random.default_rng([seed, 10_000, index])
    kind, name = pair(index, seed)
    sort = SORTS[name]
    d = int(rng.choice([1, 2], p=[0.6, 0.4]))
    largest = min(size, DEAR_SIZE if sort.dear else LARGEST_SIZE, LARGEST_SIZE if d == 1 else PLANE_SIZE)
    n = min(largest, int(2 ** rng.uniform(1, math.log2(largest + 1))))
    operation = sort.make(n, rng.uniform())
    m, n = _shape(sort.structure, n, rng)
    tol = float(rng.choice([1e-2, 1e-3, 1e-4, 1e-6] if d == 1 else [1e-2, 1e-3]))
    is_complex, single, log = rng.uniform() < 0.5, tol >= 1e-3 and rng.uniform() < 0.2, rng.uniform() < 0.25
    real = torch.float32 if single else torch.float64
    profiles = _profiles(kind, d, rng)
    centre, waves = _coefficients(sort.structure, m, n, len(profiles), is_complex, rng)
    dtype = real.to_complex() if is_complex else real
    middle, others = torch.from_numpy(centre), torch.from_numpy(waves).flatten(1)
    low = torch.full((d,), 1e-3 if log else float(rng.uniform(-5, 5)), dtype=torch.float64)
    up = torch.full((d,), 10.0 if log else float(low[0] + 10 ** rng.uniform(-2, 3)), dtype=torch.float64)
    scale = ["log" if log else "linear"] + ["linear"] * (d - 1)

    def fn(p: Tensor) -> Tensor:
        x = (p.double() - low) / (up - low)
        if log:
            x[:, 0] = (p[:, 0].double().log() - low[0].log()) / (up[0].log() - low[0].log())
        phi = torch.stack([profile(x) for profile in profiles], dim=1).to(others.dtype)
        return ((phi @ others).view(-1, m, n) + middle).to(dtype)

    axes = {"scale": scale} if log else {}
    family = nm.ParametricMatrix(fn, low.to(real), up.to(real), **axes)
    if sort.structure == "beside":
        right = rng.normal(size=(m, 1)) + (1j * rng.normal(size=(m, 1)) if is_complex else 0)
        family = nm.families.beside(family, torch.from_numpy(right).to(dtype))
    return Sample(index, kind, name, nm.Problem(family, operation), tol, log)


@dataclass(frozen=True)
class Outcome:
    """A fit, judged at fresh parameters.

    Attributes:
        sample: What was fitted.
        met: What the report says.
        failing: Share of the fresh parameters whose residual exceeds the tolerance.
        outside: Of an unmet fit, the share that fails outside of the boxes that the report names.
        named: Share of the fresh parameters inside those boxes.
        solves, seconds: Exact solves and wall time of the fit.
        warned: Whether the fit warned.
        note: Why the fit stopped, or the error that it raised.
    """

    sample: Sample
    met: bool
    failing: float
    outside: float
    named: float
    solves: int
    seconds: float
    warned: bool
    note: str

    @property
    def offends(self) -> bool:
        """Whether the report claims too much: more than twice the target fails where it names nothing."""
        return (self.failing if self.met else self.outside) > 2 * TARGET

    def __str__(self) -> str:
        s = self.sample
        family = s.problem.family
        size, dtype = f"{family.shape[0]} x {family.shape[1]}", str(family.dtype).removeprefix("torch.")
        what = f"{s.index:4d} {s.kind:11s} {s.sort:19s} {size}, d = {s.dimension}, {dtype}{', log' * s.log}"
        place = "" if self.met else f", {self.outside:.2%} outside of the boxes named, which are {self.named:.0%}"
        warned = ", warned" if self.warned else ""
        said = f"{'met' if self.met else 'unmet'}, {self.failing:.2%} fail{place}"
        return f"{what}, tol {s.tol:g}: {said}; {self.solves} solves, {self.seconds:.1f} s{warned}; {self.note}"


def residuals(problem: nm.Problem, surrogate: nm.Surrogate, p: Tensor) -> Tensor:
    """Evaluate and judge in blocks that bound the memory."""
    numbers = math.prod(problem.family.shape) + sum(math.prod(factor.shape) for factor in problem.factors)
    return torch.cat([problem.residual(q, surrogate(q)) for q in p.split(max(1, BLOCK // numbers))])


def _inside(p: Tensor, boxes: Iterable) -> Tensor:
    found = torch.zeros(len(p), dtype=torch.bool)
    for box in boxes:
        low, up = (torch.as_tensor(side, dtype=torch.float64) for side in (box.lower, box.upper))
        found |= ((p >= low) & (p <= up)).all(dim=1)
    return found


def judged(found: Sample, fresh: int = FRESH) -> Outcome:
    """Fit a sample to its tolerance and judge it; an error that the fit raises counts as failing everywhere."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            surrogate = nm.fit(found.problem, tol=found.tol, progress=False)
        except Exception as error:  # the study goes on, and shows it
            note = f"{type(error).__name__}: {error}"
            return Outcome(found, False, 1.0, 1.0, 0.0, 0, 0.0, False, note.splitlines()[0][:200])
    report, p = surrogate.report, found.fresh(fresh)
    fails = ~(residuals(found.problem, surrogate, p) <= found.tol)
    inside = _inside(p.double(), report.unmet)
    note = "; ".join([report.stop_reason.name.lower(), *sorted({place.reason for place in report.unmet})])
    shares = (fails, fails & ~inside, inside)
    return Outcome(
        found,
        report.met,
        *(float(x.double().mean()) for x in shares),
        report.exact_solves,
        report.seconds,
        bool(heard),
        note,
    )


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else math.nan


def groups(outcomes: list[Outcome]) -> list[dict[str, object]]:
    """Return by kind and number of parameters: what is met and wrong, what is unmet and located, and what it took."""
    found = []
    for kind, d in [*((kind, d) for kind in KINDS for d in (1, 2)), ("all", 0)]:
        of = [x for x in outcomes if kind == "all" or (x.sample.kind, x.sample.dimension) == (kind, d)]
        if not of:
            continue
        met, unmet = [x for x in of if x.met], [x for x in of if not x.met]
        found.append(
            {
                "kind": kind,
                "d": d or None,
                "fits": len(of),
                "met": len(met),
                "wrong": sum(x.offends for x in met),
                "largest": max((x.failing for x in met), default=0.0),
                "unmet": len(unmet),
                "located": sum(not x.offends for x in unmet),
                "named": _median([x.named for x in unmet]),
                "solves": _median([x.solves for x in of]),
                "seconds": max(x.seconds for x in of),
            }
        )
    return found


def table(outcomes: list[Outcome]) -> str:
    """Return the groups as lines of text."""
    lines = [f"{'kind':14s}d  fits   met  wrong  largest  unmet  located  named box  solves (median)  longest fit"]
    for x in groups(outcomes):
        lines.append(
            f"{x['kind']:14s}{x['d'] or '':1}  {x['fits']:4d}  {x['met']:4d}  {x['wrong']:5d}  {x['largest']:7.2%}  "
            f"{x['unmet']:5d}  {x['located']:7d}  {x['named']:9.1%}  {x['solves']:15.0f}  {x['seconds']:9.1f} s"
        )
    return "\n".join(lines)


def offenders(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the fits whose reports claim too much, the worst first."""
    return sorted((x for x in outcomes if x.offends), key=lambda x: -max(x.failing if x.met else 0, x.outside))


def kept(outcomes: list[Outcome]) -> dict[str, bool]:
    """Return whether the bars are kept: few met fits that are wrong, none that is very wrong, every failure located."""
    met = [x for x in outcomes if x.met]
    return {
        "few of the met are wrong": sum(x.offends for x in met) <= MOST_OFFENDERS * len(met),
        "none of the met is very wrong": all(x.failing <= MOST_FAILING for x in met),
        "every unmet report names the place": not any(x.offends for x in outcomes if not x.met),
        "every unmet fit warns": all(x.warned for x in outcomes if not x.met),
    }


def run(
    indices: Iterable[int], seed: int = 0, fresh: int = FRESH, size: int = LARGEST_SIZE, *, show: bool = False
) -> list[Outcome]:
    """Fit and judge samples; ``show`` prints each as it comes."""
    outcomes = []
    for index in indices:
        outcomes.append(judged(sample(index, seed, size), fresh))
        if show:
            print(outcomes[-1], flush=True)
    return outcomes


def main() -> None:
    """Print every fit, the table, the offenders and the bars."""
    parser = argparse.ArgumentParser(prog="python -m studies.random_families")
    parser.add_argument("--count", type=int, default=200, help="families, from the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", type=int, default=FRESH, help="fresh parameters of each")
    parser.add_argument("--size", type=int, default=LARGEST_SIZE, help="largest matrices")
    parser.add_argument("--only", type=int, nargs="+", metavar="INDEX", help="only these families")
    given = parser.parse_args()
    outcomes = run(given.only or range(given.count), given.seed, given.fresh, given.size, show=True)
    print("", table(outcomes), "", *(f"offender: {x}" for x in offenders(outcomes)), sep="\n")
    print(*(f"{'yes' if right else 'NO'}: {bar}" for bar, right in kept(outcomes).items()), sep="\n")


if __name__ == "__main__":
    main()
