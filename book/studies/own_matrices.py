"""Chapter *Your own matrices*: files and models such as users bring, and a fair look at what else would serve them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import skfem
import skrf
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.linalg import eig, eigh
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve
from skfem.models.poisson import laplace, mass
from torch import Tensor

import neumatc as nm
from neumatc import linalg
from studies import benchmark, figures, last_good, practice, solvers, texts
from studies.provenance import Record, Table, glue
from studies.texts import spread, told

# Exact results by NumPy, one after the other.
LOOP = "NumPy loop"
# Random parameters at which ways are compared, and rounds of the clock.
FRESH, ROUNDS = 300, 5
# The way that solves sparse systems, where there is one.
SPARSE = "sparse solves"
# The way that sums modes, which the damping must not couple.
MODES = "modes of K and M, damping proportional"
# What sentences call the ways whose break-even points they give.
SAID = {
    "this map": "the map",
    "Chebyshev interpolation": "Chebyshev interpolation",
    "cubic spline": "a cubic spline",
    "reduced basis": "a reduced basis",
    "reduced basis, projected once": "one that is projected in advance",
    "AAA": "AAA",
    MODES: "a sum of modes",
}
# What stands beside the map where the text says of which values a bound or an estimate is good enough.
CHECKED = {
    "numpy": "Chebyshev interpolation",
    "matlab": "Chebyshev interpolation",
    "membrane": "AAA",
    "kernel": "cubic spline",
}
# What the text calls the starting points.
TITLES = {
    "numpy": "the scattering matrix",
    "matlab": "the receivers",
    "touchstone": "the filter",
    "bands": "the bands",
    "membrane": "the membrane",
    "kernel": "the kernel matrix",
}


def matlab_file(folder: Path, antennas: int = 32, samples: int = 401, seed: int = 0) -> Path:
    """Write what MATLAB's ``save('channel.mat', 'f', 'H', '-v7.3')`` writes, and return its path.

    H is m x n x N, m ``antennas`` by n = m / 2: a channel of six paths at N frequencies f (N x 1, GHz). MATLAB counts
    the first index fastest, HDF5 the last, so the file has the axes in reverse, (N, n, m) and (1, N); complex numbers
    are pairs named real and imag.
    """
    rng, f = np.random.default_rng(seed), np.linspace(3.45, 3.55, samples)
    shape = (6, antennas, antennas // 2)
    delays, powers = rng.uniform(0, 20, 6), np.exp(-np.arange(6) / 3)
    gains = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) * np.sqrt(powers / 2)[:, None, None]
    H = np.einsum("pmn,pf->mnf", gains, np.exp(-2j * np.pi * delays[:, None] * f))
    pairs = np.empty(H.T.shape, np.dtype([("real", "f8"), ("imag", "f8")]))
    pairs["real"], pairs["imag"] = H.T.real, H.T.imag
    path = folder / "channel.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in (("f", f[:, None].T), ("H", pairs)):
            file.create_dataset(name, data=value).attrs["MATLAB_class"] = np.bytes_("double")
    return path


def touchstone_file(folder: Path, samples: int = 401) -> Path:
    """Write the scattering matrices of a filter as ``filter.s4p``, and return its path.

    Four resonators in a row with a port at each, 1 to 2 GHz, Q about 100: I = Y V with the admittances of inductors,
    capacitors and losses, and capacitors between neighbours.
    """
    f = np.linspace(1e9, 2e9, samples)
    s = 2j * np.pi * f[:, None, None]
    C, L, G = np.diag([10.0, 11.0, 10.5, 9.5]) * 1e-12, np.diag([1.1, 1.0, 1.05, 1.15]) * 1e-9, 1e-3 * np.eye(4)
    coupling = 0.8e-12 * (2 * np.eye(4) - np.eye(4, k=1) - np.eye(4, k=-1))
    Y = G + s * (C + coupling) + np.linalg.inv(L) / s
    network = skrf.Network(frequency=skrf.Frequency.from_f(f, unit="Hz"), s=skrf.network.y2s(Y), z0=50)
    network.write_touchstone("filter", dir=folder)
    return folder / "filter.s4p"


def vector_fitted(network: skrf.Network, loads: NDArray, poles: int = 4) -> Callable[[Tensor], Tensor]:
    """Return (I - S(f) R)^-1, f in GHz, solved with the S of scikit-rf's vector fitting: so many pairs of poles."""
    start, count = time.perf_counter(), network.nports
    fit = skrf.vectorFitting.VectorFitting(network)
    fit.vector_fit(n_poles_real=0, n_poles_cmplx=poles)

    def solve(p: Tensor) -> Tensor:
        f = p.numpy().ravel() * 1e9
        S = np.array([[fit.get_model_response(i, j, f) for j in range(count)] for i in range(count)])
        return torch.from_numpy(np.linalg.inv(np.eye(count) - S.transpose(2, 0, 1) @ loads))

    solve.exact_solves, solve.seconds = 0, time.perf_counter() - start
    return solve


def ribbon(width: int) -> tuple[NDArray, NDArray]:
    """Return H0 and H1 of an armchair ribbon of graphene, nearest neighbours, H(k) = H0 + exp(ik) H1 + its adjoint.

    There are 2 ``width`` atoms in a cell, energies in units of the hopping. The mirror along the ribbon keeps bands of
    different parity apart: they cross.
    """
    rows = np.arange(width)
    x = np.concatenate([1.5 * (rows % 2), 1.5 * (rows % 2) + 1])
    y = np.tile(rows * np.sqrt(0.75), 2)

    def bonds(shift: float) -> NDArray:
        distance = np.hypot(x[:, None] - x - shift, y[:, None] - y)
        return -(np.abs(distance - 1) < 1e-6).astype(float)

    return bonds(0.0), bonds(3.0)


def membrane(cells: int) -> tuple[csr_matrix, csr_matrix, csr_matrix]:
    """Return stiffness K, damping C and mass M of a clamped membrane of 2 x 1, assembled with scikit-fem.

    Rayleigh damping, about 1 % at the lowest resonances, which is proportional: a weighted sum of K and M.
    2 ``cells`` by ``cells`` bilinear elements.
    """
    mesh = skfem.MeshQuad.init_tensor(np.linspace(0, 2, 2 * cells + 1), np.linspace(0, 1, cells + 1)).with_defaults()
    basis = skfem.Basis(mesh, skfem.ElementQuad1())
    inside = basis.complement_dofs(basis.get_dofs())
    K, M = (form.assemble(basis)[inside][:, inside] for form in (laplace, mass))
    return K, 1e-3 * K + 0.04 * M, M


def projected(problem: nm.Problem, count: int, matrices: Sequence[csr_matrix], load: NDArray) -> Callable:
    """Return x(w) of (K + i w C - w^2 M) x = load in the span V of ``count`` exact solutions, at Chebyshev nodes.

    The fixed matrices ``(K, C, M)`` are projected once, V^H K V and so on. A value then costs ``count`` equations and a
    product with V: no matrix of full size is formed any more, as a peer that is given a function of all must. The
    exact solutions are `sparse_solves`.
    """
    start = time.perf_counter()
    nodes = problem.family.box.parameters(nm.sampling.design(count, 1)[0])
    V = np.linalg.qr(sparse_solves(matrices, load[:, 0])(nodes)[:, :, 0].T.numpy())[0]
    K, C, M = (V.conj().T @ (matrix @ V) for matrix in matrices)
    small = V.conj().T @ load

    def solve(p: Tensor) -> Tensor:
        w = p.numpy()[:, :, None]
        return torch.from_numpy(V @ np.linalg.solve(K + 1j * w * C - w**2 * M, small))

    solve.exact_solves, solve.seconds = count, time.perf_counter() - start
    return solve


def modes(matrices: Sequence[csr_matrix], load: NDArray) -> Callable:
    """Return x(w) of (K + i w C - w^2 M) x = load as a sum over the modes V of K and M, exact at every w.

    One generalised eigendecomposition has V^T K V = diag(k) and V^T M V = I. Proportional damping C = a K + b M, real
    a and b, then has V^T C V = diag(c), and x(w) = V ((V^T load) / (k + i w c - w^2)).

    Args:
        matrices: K, C and M.
        load: n x 1.

    Raises:
        ValueError: If C couples the modes, as damping in general does.
    """
    start = time.perf_counter()
    K, C, M = (matrix.toarray() for matrix in matrices)
    k, V = eigh(K, M)
    damping = V.T @ C @ V
    c, gains = np.diag(damping), (V.T @ load)[:, 0]
    coupled = float(abs(damping - np.diag(c)).max() / abs(c).max())
    if coupled > 1e-9:
        raise ValueError(
            f"`matrices`: expected a C that does not couple the modes of K and M, such as a K + b M, got a coupling of "
            f"{coupled:.0e} of the largest damping; take `complex_modes`."
        )

    def solve(p: Tensor) -> Tensor:
        w = p.numpy()
        parts = gains / (k + 1j * w * c - w**2)
        return torch.from_numpy(parts.real @ V.T + 1j * (parts.imag @ V.T))[:, :, None]

    solve.exact_solves, solve.seconds = 0, time.perf_counter() - start
    return solve


def complex_modes(matrices: Sequence[csr_matrix], load: NDArray) -> Callable:
    """Return x(w) of (K + i w C - w^2 M) x = load as a sum over complex modes: exact at every w, whatever damps.

    With s = i w and z = (x, s x) the equation is linear in s, s B z = A z + (0, load), where A = [[0, I], [-K, -C]] and
    B = [[I, 0], [0, M]]. One eigendecomposition A Z = B Z diag(t), of size 2 n, gives x(s) = Z_1 (g / (s - t)), with
    B Z g = (0, load) and the first n rows Z_1 of Z. A pencil that cannot be diagonalised has no such Z.

    Args:
        matrices: K, C and M.
        load: n x 1.
    """
    start = time.perf_counter()
    K, C, M = (matrix.toarray() for matrix in matrices)
    zero, one = np.zeros_like(K), np.eye(len(K))
    B = np.block([[one, zero], [zero, M]])
    t, Z = eig(np.block([[zero, one], [-K, -C]]), B)
    gains, shapes = np.linalg.solve(B @ Z, np.concatenate([np.zeros_like(load), load]))[:, 0], Z[: len(K)]

    def solve(p: Tensor) -> Tensor:
        return torch.from_numpy((gains / (1j * p.numpy() - t)) @ shapes.T)[:, :, None]

    solve.exact_solves, solve.seconds = 0, time.perf_counter() - start
    return solve


def sparse_solves(matrices: Sequence[csr_matrix], load: NDArray) -> Callable:
    """Return x(w) of (K + i w C - w^2 M) x = load by SuperLU, one system after the other: exact, no fit."""
    K, C, M = matrices

    def solve(p: Tensor) -> Tensor:
        return torch.from_numpy(
            np.stack([spsolve((K + 1j * w * C - w**2 * M).tocsc(), load) for w in p[:, 0].tolist()])[:, :, None]
        )

    solve.exact_solves, solve.seconds = 0, 0.0
    return solve


def kernel(count: int, seed: int = 0) -> Callable[[float], NDArray]:
    """Return the function from a length scale to the covariance of noisy samples of a Gaussian process, n x n."""
    x = np.random.default_rng(seed).uniform(0, 1, (count, 2))
    squares = ((x[:, None] - x) ** 2).sum(axis=2)
    return lambda scale: np.exp(-squares / (2 * scale**2)) + 1e-2 * np.eye(count)


def weigh(record: Record, name: str, problem: nm.Problem, ways: Mapping[str, Callable]) -> Table:
    """Compare ways to the same values, keep what came in the record, and return it as a table.

    Args:
        record: Takes under ``name`` the ``shape`` of A, the number of ``samples`` if it is measured, the ``tol`` of the
            map, which is the first way, what ``certify`` has (``certainty``), and of each of the ``ways`` a dictionary:
            ``solves``, ``error``, the largest at fresh random parameters, at how many of them it is ``above`` the
            tolerance, at how many the bound or estimate is not (``kept``), and with quartiles
            ``time`` of a value in exact solutions, ``over_first`` in those of the first way, and ``pays``, the number
            of values from which on it takes less time than exact solutions, building included, infinite where never.
            Exact solutions are those of the faster of two ways, the library's batch and a NumPy loop (``conditions``);
            ``pays_sparse`` is the same beside the way ``sparse solves``, if there is one.
        name: Of the starting point.
        problem: The problem.
        ways: Functions p (B, 1) -> value by name: a surrogate, a peer, or any with ``exact_solves`` and ``seconds``.
    """
    p = problem.family.box.uniform(FRESH, torch.Generator().manual_seed(record.seed))
    exact = {"exact": problem.exact, LOOP: lambda p: one_by_one(problem, p)}
    calls = {way: lambda function=function: function(p) for way, function in {**exact, **ways}.items()}
    timings, first = benchmark.compare(calls, rounds=ROUNDS, warm_up=0), next(iter(ways))
    baseline = min(exact, key=lambda name: statistics.median(timings.seconds[name]))
    found, tol = {}, getattr(getattr(ways[first], "report", None), "tol", None)
    matrices, right = problem.operation.admitted(problem.family(p)), problem.unpack(problem.exact(p).value, p)
    for way, function in ways.items():
        built, value = getattr(function, "report", function), function(p)
        error = problem.operation.error(problem.unpack(value, p), right)
        found[way] = {
            "solves": built.exact_solves,
            "error": float(error.max()),
            "above": None if tol is None else int((error > tol).sum()),
            "kept": None if tol is None else int((stated(problem, value, *matrices) <= tol).sum()),
            "time": timings.ratio(way, baseline),
            "over_first": timings.ratio(way, first),
            "pays": timings.break_even(float(built.seconds), baseline, way, FRESH),
        }
        if SPARSE in ways:
            found[way]["pays_sparse"] = timings.break_even(float(built.seconds), SPARSE, way, FRESH)
    grid = problem.family.grid
    samples = None if grid is None else len(grid)
    shape = list(problem.family.shape)
    sizes = {"shape": shape, "samples": samples, "tol": tol, "certainty": problem.operation.certainty}
    record.numbers[name] = sizes | {"ways": found, "conditions": timings.conditions | {"exact": baseline}}
    shown = last_good.fill(record).numbers[name]["ways"]
    rows = [
        (way, str(x["solves"]), f"{x['error']:.0e}", spread(x["time"]), texts.paid(texts.settled_of(x)))
        for way, x in shown.items()
    ]
    return Table(("way", "exact solves", "largest error", "time of a value, in exact solutions", "pays from"), rows)


def one_by_one(problem: nm.Problem, p: Tensor) -> Sequence:
    """Return exact results by NumPy, one matrix after the other, as one would write it; forming them is included."""

    def each(function: Callable) -> Callable:
        return lambda A: [function(a) for a in A.numpy()]

    loops = {
        nm.Inverse: solvers.numpy_loop,
        nm.LMMSE: lambda H: practice.lmmse_loop(H, problem.operation.noise),
        nm.Cholesky: each(np.linalg.cholesky),
        nm.Eigh: each(np.linalg.eigh),
        nm.Solve: each(lambda both: np.linalg.solve(both[:, : len(both)], both[:, len(both) :])),
    }
    return loops[type(problem.operation)](problem.family(p))


def stated(problem: nm.Problem, value: Tensor | tuple[Tensor, ...], A: Tensor, admitted: Tensor) -> Tensor:
    """Return the bound or estimate of the relative error that `neumatc.certify` would state, of any values (B,).

    Args:
        problem: The problem.
        value: Of any origin.
        A, admitted: The matrices, as `Operation.admitted` returns them.
    """
    factors = [linalg.wide(x) for x in ([value] if isinstance(value, Tensor) else value)]
    return torch.where(admitted, problem.operation.error_bound(linalg.wide(A), factors), torch.inf)


def checked(found: Mapping[str, object], way: str) -> str:
    """Return in a sentence where the bound or estimate of the map, and of another way, is at most the tolerance.

    Example:
        >>> kept = {"this map": {"kept": 295}, "AAA": {"kept": 300}}
        >>> checked({"certainty": "bound", "ways": kept}, "AAA")[38:]
        'it is at most the tolerance for 295 of 300 values of the map, and 300 of AAA.'
    """
    own, other = (found["ways"][name]["kept"] for name in ("this map", way))
    return (
        f"The {found['certainty']} can be taken of any values: it is at most the tolerance for {own} of {FRESH} values "
        f"of the map, and {other} of {SAID[way]}."
    )


def energies(record: Record, surrogate: nm.Surrogate, H: Callable[[float], NDArray]) -> None:
    """Record the energies that a surrogate follows, and the exact ones, which only know their order."""
    k = np.linspace(float(surrogate.lower), float(surrogate.upper), 400)
    exact = np.array([np.linalg.eigvalsh(H(x)) for x in k])
    record.arrays |= {"bands_k": k, "bands_exact": exact, "bands_followed": surrogate(k).eigenvalues}


def bands(record: Record) -> Axes:
    """Draw the energies that were followed over the exact ones."""
    k, exact, followed = (record.arrays[f"bands_{key}"] for key in ("k", "exact", "followed"))
    axes = figures.plt.subplots()[1]
    axes.plot(k, exact, color=figures.GREY, lw=0.8, ls=":")
    axes.plot(k, followed)
    title = f"{followed.shape[1]} bands; dotted: exact"
    axes.set(xlabel="$k$, times the length of a cell", ylabel="energy, in hoppings", title=title)
    return axes


def paying(ways: Mapping[str, Sequence[float]], above: Sequence[str] = ()) -> str:
    """Return in sentences from how many values on ways pay, and of which ways that is not known.

    Args:
        ways: Where each pays, by its name in a sentence.
        above: The names of those whose error is above the tolerance, which is said.

    Example:
        >>> paying({"the map": (276.0, 281.0, 287.0), "a spline": (math.nan,) * 3})
        'The map pays from 280 (280 to 290) values on. Times of a spline varied too much.'
        >>> paying({"the map": (90.0, 90.0, 90.0), "a spline": (20.0, 20.0, 20.0)}, above=["a spline"])[-72:]
        'from 20 values on. The largest error of a spline is above the tolerance.'
    """
    missed = f" The largest error of {texts.listed(above)} is above the tolerance." if above else ""
    known = [f"{name} pays {pays(ratio)}" for name, ratio in ways.items() if not math.isnan(ratio[1])]
    lost = [name for name, ratio in ways.items() if math.isnan(ratio[1])]
    if not known:
        return texts.UNTOLD + missed
    said = ", ".join(known)
    return f"{said[0].upper()}{said[1:]}." + f" Times of {texts.listed(lost)} varied too much." * bool(lost) + missed


def pays(ratio: Sequence[float]) -> str:
    """Return from how many values on a way pays, in words.

    Example:
        >>> pays((276.0, 281.0, 287.0)), pays((math.inf,) * 3)
        ('from 280 (280 to 290) values on', 'never')
        >>> pays(texts.settled((19.7, 20.8, 22.1), 23))
        'below 23 values (the clock settles no more)'
    """
    if texts.unsettled(ratio):
        return f"{texts.below(ratio[1])} values (the clock settles no more)"
    return f"from {spread(ratio)} values on" if math.isfinite(ratio[1]) else "never"


def beside(own: Mapping[str, object], other: Mapping[str, object], name: str) -> str:
    """Return a sentence on a way through as many exact solutions as the map: its error, and whether it pays earlier.

    Where quartiles overlap, or times are not known, nothing is said of them.

    Example:
        >>> own, quick = {"error": 2e-3, "pays": (320, 400, 430)}, {"error": 5e-4, "pays": (40, 45, 50)}
        >>> beside(own, quick, "a spline"), beside(own, own | {"error": 3e-3}, "AAA")
        ('Here a spline is more accurate than the map and pays earlier.', 'Here AAA is less accurate than the map.')
        >>> beside(quick, own, "AAA"), beside(own | {"error": 1e-4}, quick, "AAA")[-31:]
        ('Here AAA is less accurate than the map and pays later.', 'than the map, but pays earlier.')
    """
    (least, _, most), (lower, _, upper) = texts.settled_of(own), texts.settled_of(other)
    closer, earlier, later = other["error"] < own["error"], upper < least, lower > most
    pays = f"{' and' if closer == earlier else ', but'} pays {'earlier' if earlier else 'later'}"
    return f"Here {name} is {'more' if closer else 'less'} accurate than the map{pays * (earlier or later)}."


def check(record: Record) -> None:
    """Assert what the page of peers says in words."""
    ways = record.numbers["membrane"]["ways"]
    if record.profile != "smoke":
        assert ways["AAA"]["error"] < ways["this map"]["error"], "AAA is more accurate, from as many solves"
        assert ways["AAA"]["solves"] <= ways["this map"]["solves"], "and takes no more"


def glue_all(record: Record) -> None:
    """Numbers and sentences of the text."""
    ways = {name: list(found["ways"].values()) for name, found in record.numbers.items()}
    for name, (own, *others) in ways.items():
        for key in ("solves", "error"):
            glue(f"om-{name}-{key}", own[key])
        for place, other in zip(("other", "second"), others):
            glue(f"om-{name}-{place}", other["error"])
            glue(f"om-{name}-{place}-solves", other["solves"])
    for name in ("numpy", "matlab", "bands", "membrane", "kernel"):
        told_of = {SAID[way]: x for way, x in record.numbers[name]["ways"].items() if way != SPARSE}
        above = [way for way, x in told_of.items() if x["error"] > record.numbers[name]["tol"]]
        glue(f"om-{name}-pays", paying({way: texts.settled_of(x) for way, x in told_of.items()}, above))
    for name, way in CHECKED.items():
        glue(f"om-{name}-beside", beside(ways[name][0], record.numbers[name]["ways"][way], SAID[way]))
        glue(f"om-{name}-checked", checked(record.numbers[name], way))
    for name, sentence in {
        "touchstone": "A value of the map takes {} times as long as an exact one, one from vector fitting {} times.",
        "membrane": "In exact solutions a value of the map takes {}, one of the peer {}, one projected once {}.",
    }.items():
        glue(f"om-{name}-times", told(sentence, *(way["time"] for way in ways[name][:3])))
    found = record.numbers["membrane"]["ways"]
    aaa, summed = found["AAA"], found[MODES]
    glue("om-membrane-aaa", aaa["error"])
    glue("om-membrane-modes", summed["error"])
    glue("om-membrane-modes-times", told("A value of the modes takes {} exact solutions.", summed["time"]))
    beside_sparse = {way: texts.settled_of(x, found[SPARSE]) for way, x in found.items()}
    sparse = found[SPARSE]["time"], *list(beside_sparse.values())[:3]
    sentences = (
        told("A sparse solve takes {} of one.", sparse[0]),
        told("Beside it the map pays {}, the peer {}, what is projected once {}.", *sparse[1:], how=pays),
        told("AAA pays {}, a sum of modes {}.", beside_sparse["AAA"], beside_sparse[MODES], how=pays),
    )
    # What no time is known of is said once.
    glue("om-membrane-sparse", " ".join(dict.fromkeys(sentences)))
    loops = [TITLES[name] for name, own in record.numbers.items() if own["conditions"]["exact"] == LOOP]
    glue("om-loops", f"the loop for {texts.listed(loops)}" if loops else "the batch everywhere")
    glue("om-timed", texts.conditions(*(found["conditions"] for found in record.numbers.values())))
    above = {name: count for name, (own, *_) in ways.items() if (count := own["above"])}
    said = [f"{TITLES[name]} (at {count} of the parameters)" for name, count in above.items()]
    glue("om-above", f"it is for {texts.listed(said)}" if said else "here it is nowhere")
    for key, value in zip(("rows", "columns"), record.numbers["matlab"]["shape"]):
        glue(f"om-matlab-{key}", value)
    glue("om-matlab-samples", record.numbers["matlab"]["samples"])
    glue("om-fresh", FRESH)
