"""Fitting: `fit` for one problem, `fit_many` for a batch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from tqdm import tqdm

from neumatc import advice, checks, threads
from neumatc.closed_form import ClosedForm
from neumatc.families import FamilyError
from neumatc.methods import Method, Task, real_numbers
from neumatc.model import FactorMap, Surrogate
from neumatc.piece import chain
from neumatc.pieces import Pieces
from neumatc.problem import Problem
from neumatc.report import Report, StopReason, library_version
from neumatc.turns import Straight, straightened, told
from neumatc.watch import ENDINGS, Watch, memory

# Snapshots that `fit_many` fits at once: on a CPU about what its caches hold, on a GPU what fills it.
_BATCH_BYTES = {"cpu": 2**25, "cuda": 2**28}
# Far below the rounding of any precision; powers of less leave double precision.
_LEAST_TOL = 1e-30
# Places at which vectors inside blocks are looked at, for each term of a piece.
_DENSE = 8
# What to do where vectors change places.
_CHANGING = "vectors change places where values cross: order='followed' keeps labels, nm.Subspace keeps their span"


@checks.called
def fit(
    problem: Problem,
    *,
    rank: int | None = None,
    tol: float | None = None,
    budget: int | None = None,
    method: Method | None = None,
    start: Surrogate | None = None,
    seed: int = 0,
    progress: bool = True,
    time_limit: float | None = None,
) -> Surrogate:
    r"""Fit a surrogate :math:`X(p) = C \times_3 \Phi(p)` of a problem over the whole box.

    Give a tolerance, or a rank. With a tolerance the box is split into pieces until the residual is at most ``tol`` in
    each, and Phi has local support; near poles it is rational, and smooth results of three and more parameters are one
    sparse polynomial (`Pieces`). With a rank alone there is one map for the whole box, in closed form: the paper's
    (`ClosedForm`). Phases that turn fast with all of a column or row of A, as those of a receiver whose window begins
    early, are taken out before, and put back at evaluation (`neumatc.turns`); the report names the delay.
    ``surrogate.report`` says what it took, whether the tolerance
    is met, and where it is not.

    Args:
        problem: What to fit.
        rank: r, columns of the embedding; a factor with fewer than r real numbers takes its number of them. With a
            tolerance: the most terms of a piece.
        tol: Relative residual that counts as failure, in the norm of the operation's residual.
        budget: Most exact solves; 0 (with a rank alone) fits from the residual alone. Default: what the method takes.
        method: How; default `Pieces()` with a tolerance, else `ClosedForm()`.
        start: A surrogate to begin from: of the same problem for `ResidualTraining`, whose rank it gives; on the same
            box for `Pieces`, as that of the slot before, whose pieces and nodes are taken where they are enough.
        seed: Makes the fit repeatable on one machine: same seed, same surrogate. torch's global random state is
            neither read nor changed.
        progress: Show a bar on the standard error stream once the fit has taken two seconds.
        time_limit: Seconds after which the best map so far is returned. Matrices that are being solved are finished,
            and the first ones always.

    Ctrl-C and a lack of memory end a fit like its time limit: it returns the best map so far, ``report.stop_reason``
    says why, ``report.unmet`` where the tolerance is not met yet, and `FitWarning` what to do. Before the first exact
    solves there is no map: then KeyboardInterrupt, or the error, goes on to the caller.

    Returns:
        The surrogate, of the family's dtype and on its device; ``surrogate.report`` says how the fit went, why it
        stopped, and from how many parameters on the map pays. Where a tolerance is not met, a map of a given rank has
        residuals above 0.1, or every exact solve fails, `FitWarning` names cause, place and remedy. A numerical failure
        on the way (divergence, singular matrices, a family that fails at a new parameter, fewer directions than the
        rank) ends or degrades the fit and is told there; it does not raise. A tolerance that was met means small
        residuals at random parameters, no more than that (see `FitReport` for how many, and what that says of the
        others); see the operation for what its residual does not see.

    Raises:
        ValueError: Without rank and tolerance, for a rank that is larger than possible, for a family that fails at the
            first parameters, for a method that does not suit the operation, or a start of another problem.
        TypeError: For arguments of another type.
        MemoryError: Where the exact solutions and the map asked for do not fit into memory; before anything is solved.

    Example:
        >>> import torch, neumatc as nm
        >>> problem = nm.Problem(nm.families.trigonometric(size=16, dtype=torch.float64), nm.Inverse())
        >>> surrogate = nm.fit(problem, rank=24)
        >>> surrogate.report.exact_solves
        64
        >>> p = torch.rand(1000, 1, dtype=torch.float64)
        >>> float(problem.error(p, surrogate(p)).max()) < 1e-3
        True
        >>> report = nm.fit(problem, tol=1e-5).report
        >>> report.met, report.exact_solves < 80
        (True, True)
    """
    (surrogate,) = _fit([problem], rank, tol, budget, method, start, seed, progress, time_limit)
    return surrogate


@checks.called
def fit_many(
    problems: Sequence[Problem],
    *,
    rank: int | None = None,
    tol: float | None = None,
    budget: int | None = None,
    method: ClosedForm | Pieces | None = None,
    start: Surrogate | None = None,
    seed: int = 0,
    progress: bool = True,
    time_limit: float | None = None,
) -> list[Surrogate]:
    """Fit many problems of one operation, shape, dtype and device as `fit` would each, in batched linear algebra.

    With a tolerance the pieces and their nodes are chosen once for a batch of problems, which suits problems that are
    alike, as the channels of a cell; of one parameter or two, those that are resolved leave the others before these
    take many more solves. Where boxes or grids differ, factors must be aligned (singular vectors), a budget is given,
    each has poles of its own near the box, or common pieces do not lead to the tolerance, each is fitted alone, from
    what was solved for all. Channels of `wireless` with as many users and paths, and their Gram matrices, are evaluated
    in one call for the batch, as a GPU needs it; other families are called one after the other.

    With a rank the snapshots of a batch are solved in one call, and their subspaces found in one. The embeddings are
    fitted by one least-squares solve where their points are the same: for one parameter, and for operations without
    projections; what `fit` chooses there from the snapshots (polynomials in several parameters) is chosen once for
    the batch. Boxes may differ. Without exact solves, or where the snapshots must be aligned, every problem needs its
    own sequence of steps after the snapshots.

    Args:
        problems: At least one.
        rank, tol, budget, seed: As for `fit`, the same for each problem.
        method: Default `Pieces()` with a tolerance, else `ClosedForm()`; others have no batched form.
        start: For `Pieces`: one surrogate for all to begin from, as for `fit`.
        progress: Show a bar once it has taken two seconds.
        time_limit: Seconds for all together. After them the first exact solves of each batch are still finished.

    Returns:
        One surrogate for each problem, in order. The time in each report is the mean of its batch. Surrogates of a
        batch share the memory of their latent tensors.

    Raises:
        FamilyError: (a ValueError) If families fail at their first parameters, after the other problems are fitted: it
            names the problems, and its ``surrogates`` are those of the others.
        KeyboardInterrupt, MemoryError: If something ends the fits before each has a map; its ``surrogates`` are those
            of the others.
        ValueError: For problems that differ in operation, shape, dtype, device or number of parameters; and as `fit`
            does.
        TypeError: For another method, which has no batched form, or arguments of another type.

    Example:
        >>> import neumatc as nm
        >>> problems = [nm.Problem(nm.families.trigonometric(size=16, seed=i), nm.Inverse()) for i in range(3)]
        >>> [surrogate.rank for surrogate in nm.fit_many(problems, rank=24)]
        [24, 24, 24]
    """
    several = isinstance(problems, Iterable) and getattr(problems, "shape", None) != ()  # arrays of one are not
    problems = list(problems) if several else [problems]
    checks.require(problems, "problems", "at least one problem", "none", "give a list of them")
    if method is not None and not isinstance(method, (ClosedForm, Pieces)):
        raise TypeError(f"`method`: expected nm.Pieces() or nm.ClosedForm(), got {checks.shown(method)}; call nm.fit.")
    return _fit(problems, rank, tol, budget, method, start, seed, progress, time_limit)


@checks.full_precision
def _fit(
    problems: list[Problem],
    rank: int | None,
    tol: float | None,
    budget: int | None,
    method: Method | None,
    start: Surrogate | None,
    seed: int,
    progress: bool,
    time_limit: float | None,
) -> list[Surrogate]:
    watch = Watch(None if time_limit is None else checks.number("time_limit", time_limit, above=0))
    _check_alike(problems)
    first, seed, progress = problems[0], checks.seed(seed), checks.flag("progress", progress)
    tol = None if tol is None else checks.number("tol", tol, above=0)
    checks.require(tol is None or tol >= _LEAST_TOL, "tol", f"at least {_LEAST_TOL:g}", tol, "no precision has less")
    budget = None if budget is None else checks.integer("budget", budget, 0)
    if method is None:
        method = ClosedForm() if tol is None else Pieces()
    checks.instance("method", method, Method, "a method such as nm.ClosedForm()")
    rank = _checked_rank(rank, tol, start, first)
    if start is not None:
        for problem in problems:
            _check_start(start, problem, rank, method)
    _check_memory(problems, method, rank, budget)
    found: list[Surrogate | BaseException] = []
    for batch in _batches(problems, method, rank, tol, budget, progress):
        begin = time.perf_counter()
        price = start.report.evaluation_seconds if start is not None and isinstance(method, Pieces) else None
        # Pieces take nodes of a start, others its maps.
        straight = watch.attempt(lambda batch=batch: _straight(batch, None if isinstance(method, Pieces) else start))
        if isinstance(straight, BaseException):
            found += [straight] * len(batch)
            continue
        tasks = []
        for problem in straight:
            settings = method.settings()
            report = Report(type(method).__name__, settings, rank or 0, seed, tol, budget, version=library_version())
            generator = torch.Generator().manual_seed(seed)
            tasks.append(Task(problem, rank, tol, budget, start, generator, report, progress, watch))
        with torch.inference_mode(False), torch.no_grad():
            for task, maps in zip(tasks, _run(method, tasks)):
                if isinstance(maps, BaseException):
                    found.append(maps)
                    continue
                try:
                    surrogate = _finished(task, maps, begin, len(tasks), price)
                except ENDINGS as error:  # the map is there
                    watch.reason(error)
                    surrogate = _finished(task, maps, begin, len(tasks), price, brief=True)
                found.append(surrogate)
                price = task.report.evaluation_seconds  # of a batch, that of one
    return _complete(found)


@torch.inference_mode(False)
@threads.alone()  # what is done here is small
def _straight(problems: Sequence[Problem], start: Surrogate | None) -> list[Problem]:
    """Return problems without what turns fast in A, or where there is a start, without what turns in that."""
    families = [problem.family for problem in problems]
    if start is None:
        families = straightened(families, problems[0].operation)
    elif start.turns is not None:
        families = [Straight(family, start.turns) for family in families]
    return [p if f is p.family else Problem(f, p.operation) for p, f in zip(problems, families)]


def _finished(
    task: Task, maps: list[FactorMap], begin: float, many: int, price: float | None, *, brief: bool = False
) -> Surrogate:
    """Return the surrogate of a fit with its whole report; in brief, without what takes time."""
    family, report = task.problem.family, task.report
    report.met |= report.stop_reason is StopReason.TOLERANCE
    for hint in family.box.hints() if task.tol is not None and family.measured is None else ():
        task.note(hint)
    if family.densified:
        task.note("the family's sparse matrices were made dense")
    if brief:
        task.note("the map was there when the fit was ended")
    turns = family.turns if isinstance(family, Straight) else None
    if turns is not None:
        task.note(told(turns, family.box, family.shape[0]))
    box = family.box if family.box.ticks is None else family.box.to(family.device)
    with threads.alone():  # what is done here is small
        maps = maps if brief else _guided(task, maps)
        report.seconds = (time.perf_counter() - begin) / many
        surrogate = Surrogate(task.problem.operation, family.shape, maps, box, report, turns)
        if price is None:
            price = math.nan if brief else advice.seconds_per_value(surrogate)
    advice.conclude(task, surrogate, price, stacklevel=7)
    return surrogate


def _check_alike(problems: list[Problem]) -> None:
    """Raise unless the problems can be fitted together."""
    for problem in problems:
        checks.instance("problem", problem, Problem, "an nm.Problem(family, operation)")
    kinds = [(p.operation, p.family.shape, p.family.dtype, p.family.device, p.family.dimension) for p in problems]
    for i, kind in enumerate(kinds):
        expected, got = "one operation, shape, dtype, device and number of parameters", f"{kinds[0]} for problem 0 and "
        checks.require(kind == kinds[0], "problems", expected, f"{got}{kind} for problem {i}", "fit them in groups")


def _checked_rank(rank: int | None, tol: float | None, start: Surrogate | None, problem: Problem) -> int | None:
    if rank is None:
        given = tol is not None or start is not None
        checks.require(given, "rank", "an integer, or a tolerance `tol`", "neither", "give one, for example tol=1e-3")
        return None
    rank = checks.integer("rank", rank, 1)
    possible = max(real_numbers(problem, i) for i in range(len(problem.factors)))
    expected = f"at most {possible}, the real numbers in the largest factor of {problem.operation}"
    checks.require(tol is not None or rank <= possible, "rank", expected, rank, "lower it")
    return rank


def _batches(
    problems: list[Problem], method: Method, rank: int | None, tol: float | None, budget: int | None, progress: bool
) -> Iterable[list[Problem]]:
    """Return the problems in batches that are fitted at once."""
    count, first = 1, problems[0]
    batched = isinstance(method, Pieces) or (isinstance(method, ClosedForm) and tol is None and budget != 0)
    if len(problems) > 1 and batched:
        numbers = sum(real_numbers(first, i) for i in range(len(first.factors)))
        size = _BATCH_BYTES[first.family.device.type] // (8 * numbers * method.batch_snapshots(rank))
        count = max(1, min(256, size))
    batches = [problems[i : i + count] for i in range(0, len(problems), count)]
    return tqdm(batches, disable=not progress or len(batches) == 1, delay=2, unit="batch", desc="fit")


def _complete(found: list[Surrogate | BaseException]) -> list[Surrogate]:
    """Return the surrogates, or raise where families failed or something ended the fits before there were any."""
    failures = {i: one for i, one in enumerate(found) if isinstance(one, BaseException)}
    if not failures:
        return found
    if len(found) == 1:
        raise found[0]
    error = next((failure for failure in failures.values() if not isinstance(failure, FamilyError)), None)
    error = error or FamilyError(
        f"`problems`: expected families that can be fitted, got failures of {len(failures)} of {len(found)}, "
        + "; ".join(f"problem {i}: {failure}" for i, failure in failures.items())
        + "; the other fits are in the `surrogates` of this error."
    )
    error.surrogates = [None if i in failures else one for i, one in enumerate(found)]
    raise error from next((failure for failure in failures.values() if failure is not error), None)


def _run(method: Method, tasks: list[Task]) -> list[list[FactorMap] | BaseException]:
    """Fit tasks at once; halve them while a family among them fails at the snapshots, before anything is solved."""
    run = (lambda: method.run_many(tasks)) if len(tasks) > 1 else lambda: [method.run(tasks[0])]
    found, middle = tasks[0].watch.attempt(run), len(tasks) // 2
    if not isinstance(found, BaseException):
        return found
    return _run(method, tasks[:middle]) + _run(method, tasks[middle:]) if middle else [found]


def _check_memory(problems: list[Problem], method: Method, rank: int | None, budget: int | None) -> None:
    """Raise where what is asked for is larger than memory: exact solutions of a batch, and all latent tensors."""
    first, pieces = problems[0], isinstance(method, Pieces)
    terms = 2 * first.family.dimension if pieces else rank or 1  # of a map at least
    held = terms if pieces else min(method.batch_snapshots(terms), budget or 2**62)
    numbers = sum(real_numbers(first, i) for i in range(len(first.factors)))
    size = (held + len(problems) * terms) * numbers * checks.real_dtype(first.family.dtype).itemsize
    most = memory(first.family.device)
    got = f"{size / 1e9:.3g} GB for {held} exact solutions and the latent tensors"
    remedy = "lower the rank, the snapshots or the number of problems, or take single precision"
    checks.require(size <= most, "problem", f"a fit that needs at most {most / 1e9:.3g} GB", got, remedy, MemoryError)


def _guided(task: Task, maps: list[FactorMap]) -> list[FactorMap]:
    """Add the map of what `Operation.finish` turns factors of one parameter towards, where it needs that."""
    family, m = task.problem.family, maps[0]
    if task.problem.operation.order == "sorted" and "crossing" in {e.kind for e in task.report.events}:
        task.note(_CHANGING)
    if family.dimension > 1 or not task.problem.operation.finishes:
        return maps
    pieces = m.embedding.pieces(family.box, m.weights, m.rank)
    ends = family.box.cube(torch.tensor([p.lower for p in pieces] + [pieces[-1].upper], device=family.device))[:, 0]
    spans = zip(pairwise(ends.tolist()), pieces)
    x = np.concatenate([[-1.0], *(np.linspace(*span, _DENSE * piece.terms + 1)[1:] for span, piece in spans)])
    found = task.problem.operation.guide(maps, x, *family.shape, periodic=family.box.periodic[0])
    if found is None:
        return maps
    embedding, weights = chain(found[0])
    weights = {name: weight.to(family.device) for name, weight in weights.items()}
    return [*maps, FactorMap("guide", found[1], embedding, weights)]


def _check_start(start: object, problem: Problem, rank: int | None, method: Method) -> None:
    """Raise unless the surrogate belongs to the problem; for pieces, unless it is of the same box."""
    checks.instance("start", start, Surrogate, "an nm.Surrogate")
    if isinstance(method, Pieces):
        same, box = start.box == problem.family.box, problem.family.box
        checks.require(same, "start", f"a surrogate on the box {box}", f"one on {start.box}", "take its parameters")
        return
    family, wanted = problem.family, [factor.dtype(problem.family.dtype) for factor in problem.factors]
    expected = (problem.operation, family.shape, wanted, family.device, family.box)
    dtypes = [factor.dtype(m.core.dtype) for factor, m in zip(problem.factors, start.maps)]
    found = (start.operation, start.shape, dtypes, start.device, start.box)
    checks.require(found == expected, "start", f"a surrogate of the problem, {expected}", f"one of {found}", "fit one")
    checks.require(rank in (None, start.rank), "rank", f"{start.rank}, that of `start`, or None", rank, "leave it out")
