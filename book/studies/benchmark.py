"""How good and how fast: the Eckart-Young limit, relative errors, and paired timings of any callables."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor

from neumatc import checks, linalg
from studies import load
from studies.load import Load
from studies.texts import FEW

# Numbers of a batch that are compared at once.
_PART = 2**16
# Fewest rounds that have a spread.
ROUNDS = 3
# Largest spread of a callable's times: twice this from one quartile to the other, and no verdict survives anyway.
SPREAD = 0.5
# How often a measurement is tried, and for how many seconds at most it is tried again: a page must come to its end.
ATTEMPTS, PATIENCE = 3, 20.0
# Seconds from which a callable is not called before it is timed: what it finds at its start no longer matters.
LONG = 0.5
# What was timed: one callable, several together, or seconds of what ran once.
Work = str | float | tuple[str | float, ...]


def eckart_young(X: Tensor, ranks: int | list[int], *, field: str = "real") -> Tensor:
    r"""Smallest relative error that any rank-r map X(p) ~ C x_3 Phi(p) can reach on given samples.

    The samples form an N x (numbers per sample) matrix; by the Eckart-Young theorem the best approximation of rank r in
    the Frobenius norm keeps the r largest singular values, and the error is
    :math:`(\sum_{i>r} \sigma_i^2 / \sum_i \sigma_i^2)^{1/2}`. It is a bound for the error on these samples; on the
    whole interval it holds up to how well they represent it.

    Args:
        X: Samples, shape (N, ...), real or complex; use a grid that is dense against the variation of X.
        ranks: One rank or several, each at least 1.
        field: ``"real"`` limits the embedding to real values, as in this library: a complex sample counts as its real
            and imaginary parts side by side. ``"complex"`` allows complex embeddings, whose products cost twice as
            much.

    Returns:
        The limits, float64, one per rank (a 0-d tensor for a single rank). Computed from a singular value decomposition
        in double precision, not from the Gram matrix, so limits down to 1e-14 or so are meaningful.
    """
    checks.choice("field", field, ("real", "complex"))
    X = _samples(X)
    single = not isinstance(ranks, (Sequence, np.ndarray, range))
    chosen = [checks.integer("ranks", r, 1) for r in ([ranks] if single else ranks)]
    if not chosen:
        raise ValueError("`ranks`: expected an integer or several, got none.")
    wide = X.flatten(1).to(torch.complex128) if X.is_complex() and field == "complex" else _real_samples(X)
    energies = torch.linalg.svdvals(wide) ** 2
    tails = torch.cat([energies.flip(0).cumsum(0).flip(0), energies.new_zeros(1)])
    if tails[0] == 0:
        raise ValueError("`X`: expected samples that are not all zero, whose relative error is defined.")
    limits = (tails[torch.tensor(chosen).clamp_max(len(energies))] / tails[0]).sqrt().cpu()
    return limits[0] if single else limits


def best_of_rank(X: Tensor, rank: int) -> Tensor:
    """Return the best approximation of samples X (N, ...) by a rank-r map with a real embedding.

    It is the reference that `eckart_young` measures, sample by sample: each sample projected onto the leading r right
    singular vectors, computed in double precision and returned in the dtype of X. No map can be better on all samples
    together; on a single sample one can.

    Args:
        X: Samples, shape (N, ...), real or complex.
        rank: r, at least 1.

    Returns:
        The approximation, of the shape and dtype of X.
    """
    U, S, Vh = _leading(_samples(X), rank)
    return _shaped((U * S) @ Vh, X).to(X.dtype)


def least_residual(A: Tensor, rank: int, *, steps: int = 4) -> Tensor:
    r"""Return an approximation of inverses by a rank-r map with a real embedding that makes X A - I small.

    .. math:: \min_{C, \phi} \sum_i \Bigl\| \sum_{k=1}^r \phi_{ik} C_k A_i - I \Bigr\|_F^2

    has no solution by singular values. It is linear in C and in phi, so each is solved for in turn, starting from
    `best_of_rank`: no step raises the sum beyond rounding, and the result is an estimate of the least from above. The
    linear receiver X H^H with A = H^H H + s I has this goal, since its mean square error exceeds the least by at most
    :math:`\|X A - I\|_F^2`.

    Args:
        A: Samples of a family of square matrices, shape (N, n, n).
        rank: r, at least 1.
        steps: How often C and phi are solved for, by normal equations in double precision: a residual below 1e-7 or
            so is not resolved.

    Returns:
        X, of the shape and dtype of A; of fewer steps where the equations become dependent.

    Raises:
        ValueError: If a matrix is singular.
    """
    A = _samples(A)
    inverse, singular = linalg.inverse(A)
    if singular.any():
        raise ValueError(f"`A`: expected invertible matrices, got {int(singular.sum())} singular; leave them out.")
    # X A - I is what its adjoint is: A^H X^H - I, with X^H = sum_k phi_k Z_k. Products are of real and imaginary parts.
    phi, S, Vh = _leading(inverse, rank)
    X, wide = _shaped((phi * S) @ Vh, A), A.to(torch.promote_types(A.dtype, torch.float64))
    (r, n), gram = (phi.shape[1], A.shape[-1]), wide @ wide.mH
    flat, flat_gram = _real_samples(wide), _real_samples(gram)
    for _ in range(checks.integer("steps", steps, 0)):
        pairs = (phi[:, :, None] * phi[:, None, :]).flatten(1)
        blocks = _shaped(pairs.mT @ flat_gram, A).view(r, r, n, n)
        root, dependent = torch.linalg.cholesky_ex(blocks.transpose(1, 2).reshape(r * n, r * n))
        if dependent:
            break
        Z = torch.cholesky_solve(_shaped(phi.mT @ flat, A).view(r * n, n), root).view(r, n, n)
        # For each i, the equations Re <A^H Z_k, A^H Z_l> c_l = Re <A^H Z_k, I>.
        systems = (flat_gram @ _real_samples((Z[:, None] @ Z.mH).flatten(0, 1)).mT).view(-1, r, r)
        right = flat @ _real_samples(Z).mT
        c = (torch.linalg.pinv(systems, hermitian=True) @ right[:, :, None])[:, :, 0]
        X = _shaped(c @ _real_samples(Z), A).mH
        phi, _ = torch.linalg.qr(c)
    return X.to(A.dtype)


def _leading(X: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading singular triplets of the samples, in double precision."""
    rank = checks.integer("rank", rank, 1)
    U, S, Vh = torch.linalg.svd(_real_samples(X), full_matrices=False)
    return U[:, :rank], S[:rank], Vh[:rank]


def _shaped(flat: Tensor, X: Tensor) -> Tensor:
    """Undo `_real_samples`, for samples of the shape of those of X."""
    shape = (len(flat), *X.shape[1:])
    return torch.view_as_complex(flat.view(*shape, 2)) if X.is_complex() else flat.view(shape)


def _samples(X: Tensor) -> Tensor:
    if not isinstance(X, Tensor) or X.dtype not in checks.DTYPES:
        raise TypeError(f"`X`: expected a torch.Tensor of samples, real or complex, got {checks.describe(X)}.")
    if X.ndim < 2 or 0 in X.shape:
        raise ValueError(f"`X`: expected shape (N, ...) with at least two dimensions, got {tuple(X.shape)}.")
    if not torch.isfinite(X).all():
        raise ValueError("`X`: expected finite samples, got NaN or Inf; leave failed solutions out.")
    return X


def _real_samples(X: Tensor) -> Tensor:
    return (torch.view_as_real(X.resolve_conj()) if X.is_complex() else X).flatten(1).double()


def relative_error(X: Tensor, exact: Tensor) -> float:
    """Relative Frobenius error of a whole batch, as `eckart_young` measures it.

    Args:
        X: The approximations, any shape.
        exact: The exact results X*, of the same shape.

    Returns:
        (sum_p ||X(p) - X*(p)||^2 / sum_p ||X*(p)||^2)^(1/2) over the batch, computed in double precision.

    Raises:
        ValueError: If the shapes differ.
        TypeError: For anything else than tensors.
    """
    for name, value in (("X", X), ("exact", exact)):
        if not isinstance(value, Tensor):
            raise TypeError(f"`{name}`: expected a torch.Tensor, got {checks.describe(value)}; use torch.as_tensor.")
    if X.shape != exact.shape:
        raise ValueError(f"`X`: expected shape {tuple(exact.shape)} like `exact`, got {tuple(X.shape)}.")
    kind, squares = torch.promote_types(X.dtype, exact.dtype), torch.zeros(2, dtype=torch.float64, device=X.device)
    # In parts that stay in the caches, several times as fast as double copies of the whole.
    for parts in zip(*(x.to(kind).flatten().split(_PART) for x in (X, exact))):
        own, right = ((torch.view_as_real(x.resolve_conj()) if kind.is_complex else x).double() for x in parts)
        squares += torch.stack([(own - right).square().sum(), right.square().sum()])
    return float((squares[0] / squares[1]).sqrt())


class Ratio(NamedTuple):
    """A ratio of times in the same round: lower quartile, median and upper quartile over the rounds.

    Of fewer than ``texts.FEW`` rounds no quarter lies outside of the quartiles: there the least and the largest ratio
    stand in their place.
    """

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Ratio:
        """Return quartiles and median of ratios, one a round; some may be infinite."""
        return cls(*_quantiles(values, [0.0, 0.5, 1.0] if len(values) < FEW else [0.25, 0.5, 0.75]))

    def times(self, factor: float) -> Ratio:
        """Return the ratio in units that are smaller by a factor."""
        return Ratio(*(factor * x for x in self))


def _quantiles(values: Sequence[float], places: Sequence[float]) -> list[float]:
    # Between a finite and an infinite value there is no mean.
    method = "linear" if np.isfinite(values).all() else "nearest"
    return np.quantile(values, places, method=method).tolist()


# What is not known, where a timing was refused.
UNKNOWN = Ratio(math.nan, math.nan, math.nan)


def unsteady(seconds: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the callables whose times spread too much: their quartiles are ``SPREAD`` of the median apart, or more.

    Times are in units of another callable's in the same round, where there are several, so that a drift of the machine
    does not count: of the one beside which the fewest spread, and of these the one that spreads least by itself.
    """
    alone = {name: _spread(times) for name, times in seconds.items()}

    def beside(unit: str) -> list[str]:
        others = {name: [a / b for a, b in zip(x, seconds[unit])] for name, x in seconds.items() if name != unit}
        return [name for name, ratios in others.items() if _spread(ratios) > SPREAD]

    unit = min(seconds, key=lambda name: (len(beside(name)), alone[name]))
    wild = set(beside(unit))
    if len(wild) == len(seconds) - 1 and alone[unit] > SPREAD:
        wild.add(unit)
    return [name for name in seconds if name in wild]


def _spread(times: Sequence[float]) -> float:
    lower, median, upper = _quantiles(times, [0.25, 0.5, 0.75])
    return (upper - lower) / median


def objection(seconds: Mapping[str, Sequence[float]], found: Load) -> str:
    """Return why no time of a measurement is to be published, in words; empty if those of steady callables may be.

    Args:
        seconds: Name -> times by round.
        found: What other processes did meanwhile.
    """
    rounds = min(map(len, seconds.values()), default=0)
    if rounds < ROUNDS:
        return f"{rounds} round(s) have no spread"
    if refused := too_much(found):
        return refused
    if len(unsteady(seconds)) == len(seconds):
        return f"the times of every method spread by more than {SPREAD:.0%} of their median"
    return ""


@dataclass(frozen=True)
class Timings:
    """Wall times of several callables, taken in alternation, and what is to be said of them.

    Attributes:
        seconds: Name -> times by round, in seconds.
        conditions: For the record: ``refused`` (why no time is to be published, or empty), ``unsteady`` (the callables
            whose own times are not, since they spread too much), ``date``, ``rounds``, ``attempts``, ``threads``,
            ``processor``, ``load_before`` (runnable processes in the minute before) and ``load_during`` (share of the
            processor that others took).
    """

    seconds: Mapping[str, tuple[float, ...]]
    conditions: Mapping[str, object]

    @property
    def refused(self) -> bool:
        """Whether no time is to be published; every ratio is unknown then."""
        return bool(self.conditions["refused"])

    def ratio(self, slow: Work, fast: Work) -> Ratio:
        """Return how many times as long the first takes as the second, round by round.

        Args:
            slow, fast: The name of a callable; several names, whose times are added; or seconds of something that ran
                once, for which the spread is that of the other alone.
        """
        return self.by_round(lambda a, b: a / b, slow, fast)

    def ratios(self, slow: str, names: Sequence[str]) -> dict[str, Ratio]:
        """Return how many times as fast as the first each of the others is."""
        return {name: self.ratio(slow, name) for name in names}

    def break_even(self, fit: Work, exact: str, surrogate: str, count: int, instead: Work = 0.0) -> Ratio:
        """Return the number of matrices from which on a fit has paid, round by round; see :func:`break_even`.

        Args:
            fit: The fit, as in :meth:`ratio`.
            exact, surrogate: What solves exactly, and what evaluates the map, for ``count`` matrices.
            count: Number of matrices that these two work through.
            instead: What the other way costs before its first matrix.
        """

        def paid(fit: float, instead: float, slow: float, fast: float) -> float:
            return break_even(max(fit - instead, 0.0), slow / count, fast / count)

        return self.by_round(paid, fit, instead, exact, surrogate)

    def by_round(self, function: Callable[..., float], *works: Work) -> Ratio:
        """Return quartiles and median of what a function makes of the times of a round.

        Unknown where the times were refused, or one of the works is unsteady.
        """
        names = {part for work in works for part in (work if isinstance(work, tuple) else (work,))}
        if self.refused or names & set(self.conditions.get("unsteady", ())):
            return UNKNOWN
        return Ratio.of([function(*own) for own in zip(*map(self._times, works))])

    def _times(self, work: Work) -> list[float]:
        parts = work if isinstance(work, tuple) else (work,)
        rounds = len(next(iter(self.seconds.values())))
        once = ([part] * rounds if isinstance(part, float) else self.seconds[part] for part in parts)
        return [sum(together) for together in zip(*once)]


def compare(
    callables: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    warm_up: int = 1,
    judged: bool = True,
    more: Callable[[], float] = lambda: 0.0,
) -> Timings:
    """Time several callables against each other, fairly.

    Each round runs every callable once, in alternating order (forwards, then backwards), so that slow drifts of the
    machine fall on all of them; the warm-up is not counted; CUDA work is waited for. A callable that takes less than
    ``LONG`` is called once more just before, so that it finds memory, caches and threads as it left them itself, and
    not as its neighbour in the order did, which on small machines makes it up to four times as slow. Where one is
    :func:`unsteady`, as many rounds again join those before; rounds beside which other processes took too much
    count for nothing. So up to ``ATTEMPTS`` times and as long as ``PATIENCE`` lasts; an :func:`objection` that is left
    then refuses the times. Where none are `load.wanted`, one round is run, which has no spread.

    Args:
        callables: Name -> function without arguments.
        rounds: Timed rounds.
        warm_up: Rounds before them.
        judged: Whether times may be refused; not where a study makes the load itself.
        more: As for `load.Watch`: what other processes of the study have computed.

    Returns:
        The times of all attempts that count; of the last one, if none does.
    """
    rounds, warm_up = checks.integer("rounds", rounds, 1), checks.integer("warm_up", warm_up, 0)
    rounds, warm_up = (rounds, warm_up) if load.wanted() or not judged else (1, 0)
    begin, calm, last = time.perf_counter(), {}, {}
    for attempt in range(1, ATTEMPTS + 1):
        watch = load.Watch(more)
        seconds = _alternate(callables, rounds, warm_up if attempt == 1 else 0, last)
        found = watch.load()
        if not (judged and too_much(found)):
            calm, known = {name: (*calm.get(name, ()), *own) for name, own in seconds.items()}, found
        times, told = (calm, known) if calm else (seconds, found)
        refused, wild = (objection(times, told), unsteady(times)) if judged else ("", [])
        if not (refused or wild) or rounds < ROUNDS or time.perf_counter() - begin > PATIENCE:
            break
    count = len(next(iter(times.values()), ()))
    return Timings(times, conditions(refused, told, rounds=count, attempts=attempt) | {"unsteady": wild})


def conditions(refused: str, found: Load, *, rounds: int, attempts: int = 1) -> dict[str, object]:
    """Return what a record says of a measurement; see :class:`Timings`.

    Args:
        refused: Why its times are not to be published, or empty.
        found: What other processes did meanwhile.
        rounds: Timed rounds that count.
        attempts: How often rounds were taken.
    """
    return {
        "refused": refused,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "attempts": attempts,
        "threads": torch.get_num_threads(),
        "processor": load.processor(),
        "load_before": found.before,
        "load_during": None if found.others is None else round(found.others, 4),
    }


def too_much(found: Load) -> str:
    """Return in words that other processes took too much, or nothing."""
    if not found.high:
        return ""
    return f"other work took {found.others:.0%} of the processor, where {load.HIGHEST:.0%} is allowed"


def _alternate(
    callables: Mapping[str, Callable[[], object]], rounds: int, warm_up: int, last: dict[str, float]
) -> dict[str, tuple[float, ...]]:
    """Return the times by round; ``last`` has what each callable took last, and is kept up to date."""
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for i in range(warm_up + rounds):
        names = list(callables)
        for name in names if i % 2 == 0 else reversed(names):
            if i >= warm_up and last.get(name, LONG) < LONG:
                callables[name]()
            start = time.perf_counter()
            result = callables[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            elapsed = time.perf_counter() - start
            del result
            last[name] = elapsed
            if i >= warm_up:
                seconds[name].append(elapsed)
    return {name: tuple(times) for name, times in seconds.items()}


def upper_limit(failed: int, draws: int, confidence: float = 0.95) -> float:
    """Return the limit of Clopper and Pearson: the largest probability of a failure that the draws do not refute.

    Args:
        failed: How many of the draws failed.
        draws: Independent draws.
        confidence: Probability that the limit holds.

    Example:
        >>> f"{upper_limit(0, 200):.4f}"
        '0.0149'
    """
    return 1.0 if failed == draws else float(beta.ppf(confidence, failed + 1, draws - failed))


def break_even(fit_seconds: float, seconds_per_exact: float, seconds_per_surrogate: float) -> float:
    """Return the number of parameters from which fitting and evaluating beats solving exactly.

    Args:
        fit_seconds: Time of the fit; any unit, the same for all three.
        seconds_per_exact: Time of one exact solution.
        seconds_per_surrogate: Time of one evaluation.

    Returns:
        fit / (exact - surrogate), or infinity where an evaluation is not faster.
    """
    gain = seconds_per_exact - seconds_per_surrogate
    return fit_seconds / gain if gain > 0 else float("inf")
