"""Abuse: what the library must survive, as commands that anyone can run.

    python -m studies.abuse calls [--count 30000] [--seed 0]   random calls over every public name, with bad arguments

A command prints its counts, and ends with 1 if anything happened that must not.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import random
import re
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import scipy.sparse as sp
import torch

import neumatc as nm

# A call that takes longer hangs; problems and arguments are small. And the longest message, in characters.
SECONDS, LONGEST = 20.0, 300
# Share of calls with one bad argument; the others have two, or a bad one and one left out.
ONE_BAD = 0.7
# What calls may raise: FamilyError is a ValueError, files that cannot be read or written are an OSError. Memory that
# is not there is a MemoryError, and a RuntimeError of torch.
DOCUMENTED = (ValueError, TypeError, OSError)
# Names that are not called, by the reason.
NOT_CALLED = {
    # Bases that a user's own classes fill: they take no arguments.
    *("Embedding", "LinearOperation", "Method", "Operation"),
    # What is raised or warned of, and an enumeration: any text goes.
    *("FamilyError", "families.FamilyError", "FitWarning", "StopReason"),
    # Tuples of factors, and records of results: they hold what they are given, and look at none of it. The methods of
    # a report and a peer are called.
    *("Certified", "EigFactors", "EqualiserFactors", "Event", "Factor", "FailureEstimate", "LogDetFactors", "Piece"),
    *(
        "PolarFactors",
        "QRFactors",
        "Report",
        "Round",
        "SVDFactors",
        "Solution",
        "Task",
        "Unmet",
        "gauge.Alignment",
        "peers.Peer",
    ),
    # What the functions that they are given raise comes through.
    *("gauge.guide", "linalg.in_threads"),
    # It imports the module that it is told to.
    "wireless.from_sionna",
}
# Good arguments of single names, where others have another meaning or take long.
BAND = {"carrier_frequency": 3.5e9, "subcarriers": 4, "subcarrier_spacing": 3e4, "users": 2, "dtype": torch.complex64}
PANELS = {"base_antennas": 2, "user_antennas": 1, "base_pattern": "omni", "user_pattern": "omni"}
MOVING = {"power_control": True, "speed": 1.0, "symbols": 2, "direction": "uplink"}
OWN = {
    "wireless.cdl": BAND | PANELS | MOVING | {"model": "C", "delay_spread": 3e-8, "sector": 120.0},
    "wireless.drop": BAND | PANELS | MOVING | {"scenario": "UMi", "penetration": "low"},
    "wireless.tdl": BAND
    | MOVING
    | {"model": "A", "delay_spread": 3e-8, "base_antennas": 2, "user_antennas": 1}
    | {"base_correlation": torch.eye(2), "user_correlation": torch.eye(1)},
    "wireless.from_cir": {"a": torch.ones(1, 2, 2, 1, 3, 1) * 1j, "tau": torch.ones(1, 2, 3) * 1e-7, "times": None},
    "wireless.from_paths": {"times": None},
}


class SlowError(BaseException):
    """A call took longer than `SECONDS`."""


@dataclass(frozen=True)
class Target:
    """A public name with arguments that it takes.

    Attributes:
        label: The name.
        call: What is called.
        good: Its arguments, by name.
    """

    label: str
    call: Callable
    good: dict[str, object]


@dataclass
class Outcome:
    """What a run of calls came to.

    Attributes:
        counts: Calls by what they did: ``"returned"``, or the name of the exception.
        findings: Calls that did what is not documented, each as one line.
    """

    counts: Counter = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def _matrix(x: float) -> np.ndarray:
    return np.array([[2.0 + x, 0.3], [0.1, 3.0 - x * x]])


def _raises(*arguments: object) -> None:
    raise ArithmeticError("on purpose, with much to say " * 40)


def _good(folder: Path) -> tuple[dict[str, object], dict[str, object]]:
    """Return instances whose methods are called, by name, and good arguments by their names."""
    family = nm.ParametricMatrix(_matrix, 0.0, 1.0, batched=False)
    problem, factored = nm.Problem(family, nm.Inverse()), nm.Problem(family, nm.SVD())
    surrogate = nm.fit(problem, rank=3, progress=False)
    p, A = torch.linspace(0, 1, 3, dtype=torch.float64)[:, None], family(torch.linspace(0, 1, 3).double())
    coefficients, delays = torch.ones(2, 3, 2, 1, dtype=torch.complex128), torch.rand(2, 3, dtype=torch.float64) * 1e-6
    frequencies = torch.linspace(0, 1e6, 5, dtype=torch.float64)[:, None]
    nm.save(surrogate, folder / "good.safetensors")
    owners = {
        "family": family,
        "problem": problem,
        "factored": factored,
        "surrogate": surrogate,
        "pieces": nm.fit(problem, tol=1e-8, rank=6, progress=False),
        "svd": nm.fit(factored, rank=3, progress=False),
        "box": nm.Box([0.0, 1.0], [1.0, 2.0], scale=["linear", "log"], periodic=[True, False]),
        "report": surrogate.report,
        "peer": nm.peers.chebyshev(problem, 5),
        "channel": nm.wireless.Channel(coefficients, delays, 0.0, 1e6, frequencies=frequencies),
        "sampler": nm.FailureInformedSampling(candidates=20, samples=20, stages=2),
    }
    mlp = nm.SinusoidalMLP(width=4)
    arguments = {
        **{
            "family": family,
            "matrices": family,
            "problem": problem,
            "problems": [problem, problem],
            "surrogate": surrogate,
        },
        **{"fn": _matrix, "lower": 0.0, "upper": 1.0, "batched": False, "grid": [0.0, 0.5, 1.0], "names": ["x"]},
        **{"units": ["m"], "scale": "linear", "periodic": False, "dtype": torch.float64, "device": "cpu"},
        **{"operation": nm.Inverse(), "p": p, "x": 2 * p - 1, "value": A, "A": A, "B": A, "U": A, "M": A, "X": A},
        **{"left": family, "right": family, "axes": p, "out": None, "extrapolate": False, "memory_budget": 10**6},
        **{"orthonormal": False, "rtol": 0.1, "rank": 2, "tol": 0.1, "budget": 8, "method": None, "start": None},
        **{"seed": 0, "progress": False, "path": folder / "good.safetensors", "size": 3, "terms": 2, "shift": 3.0},
        **{"dim": 1, "dimension": 1, "cycles": 1.0, "count": 4, "kind": "sobol", "stretch": 0.0, "accuracy": 1e-6},
        **{"nodes": 9, "noise": 0.1, "degree": 3, "index": "total", "function": "exp", "side": "left", "steps": 10},
        **{"gauge": "vectors", "columns": 1, "snapshots": None, "design": "sobol", "projections": None},
        **{"embedding": mlp},
        **{"batch": 4, "learning_rate": 0.01, "schedule": "cosine", "collocation": 16, "rounds": 1, "added": 4},
        **{
            "most": None,
            "smallest": 1e-6,
            "share": 1.0,
            "ticks": None,
            "depth": 0,
            "complex": False,
            "layers": 1,
            "width": 4,
            "frequency": 2.0,
        },
        **{"candidates": 20, "samples": 20, "quantile": 0.1, "stages": 2, "defensive": 0.2, "name": "X", "core": A},
        **{"weights": mlp.initialise(1, 3, torch.Generator()), "shape": (2, 2), "maps": list(surrogate.maps)},
        **{
            "box": family.box,
            "report": surrogate.report,
            "H": A,
            "W": A,
            "direction": "uplink",
            "like": A,
            "C": A,
            "F": A,
        },
        **{
            "coefficients": coefficients,
            "delays": delays,
            "frequencies": frequencies,
            "sides": None,
            "tangents": False,
        },
        **{"training": 16, "data": surrogate.report.to_dict(), "entry": nm.Round(), "generator": torch.Generator()},
        **{"tolerance": 0.5, "residual": lambda p: p[:, 0], "failed": torch.zeros(3, dtype=torch.bool), "rows": A[0]},
        **{"defect": A, "error": A, "psi": A[0], "Y": A[0], "L": A, "Q": A[0], "basis": A[0], "penalty": 0.1},
        **{
            "iterations": 2,
            "sketch": None,
            "values": A[:, 0],
            "frames": A,
            "duals": None,
            "factors": (A,),
            "good": torch.ones(3, dtype=torch.bool),
        },
    }
    return owners, arguments


def _values() -> list[Callable[[], object]]:
    """Return makers of bad and odd arguments; some can be used up, so each is made anew."""
    plain = [
        *(None, True, 0, -1, 7, 2.5, -0.0, 1e400, -1e400, float("nan"), 1e300, 5e-324, 10**12, 2**63, 10**400),
        *(
            "",
            "a",
            "cuda:99",
            "nonsense" * 100,
            "a" * 5000,
            b"\x00",
            1j,
            Fraction(1, 3),
            ...,
            object(),
            int,
            torch.float16,
            10**5000,
        ),
        *([], [[]], [1, [2]], ["a"], [None], [0.5] * 500, (), {}, {"p": 1}, {1}, range(3), slice(3)),
        *(np.int64(3), np.int64(-1), np.float16(0.5), np.float64("nan"), np.True_, np.str_("a"), np.datetime64("nat")),
        *(_raises, len, lambda p: p, lambda p: None, lambda p: "A", lambda p: [[p]], torch.nn.Identity(), random, nm),
        *(Path("nowhere") / "a", Path(), nm.SVD(rank=9), nm.Inverse(), nm.Pieces(), nm.ClosedForm(), nm.Chebyshev(3)),
    ]
    arrays = [
        lambda: np.array(2.0),
        lambda: np.array(["a"]),
        lambda: np.array([object()]),
        lambda: np.full((3, 1), np.nan),
        lambda: np.ones((0, 1)),
        lambda: np.ones((2, 3, 4, 5)),
        lambda: np.ones(3, dtype=np.longdouble),
        lambda: np.ones((3, 2, 2), dtype=">c16"),
        lambda: np.ones(3, dtype=bool),
        lambda: np.zeros(2, dtype=[("a", float)]),
        lambda: np.ma.masked_array([0.5, 0.5], mask=[True, False]),
        lambda: np.broadcast_to(np.float64(0.5), (3, 1)),
        lambda: sp.eye_array(3, format="csr"),
        lambda: sp.csr_array((0, 0)),
    ]
    tensors = [
        lambda: torch.tensor(0.5),
        lambda: torch.tensor(torch.nan),
        lambda: torch.zeros(0, 1),
        lambda: torch.zeros(0, 2, 2),
        lambda: torch.ones(3, 2, 2),
        lambda: torch.full((3, 2, 2), torch.inf, dtype=torch.float64),
        lambda: torch.ones(2, 3, 4, 5),
        lambda: torch.ones(3, 1, dtype=torch.bool),
        lambda: torch.ones(3, 1, dtype=torch.complex64),
        lambda: torch.ones(3, 1, dtype=torch.float16),
        lambda: torch.ones(3, 1, dtype=torch.int64),
        lambda: torch.ones(3, 1, device="meta"),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.full((3, 1), 0.5, dtype=torch.float64, requires_grad=True),
        lambda: torch.full((1, 1), 0.5, dtype=torch.float64).expand(3, 1),
        lambda: torch.tensor([[1e300]], dtype=torch.float64),
        lambda: torch.ones(3, 2, 2, dtype=torch.complex128).conj(),
    ]
    used_up = [lambda: iter([0.5]), lambda: (x for x in ()), lambda: open_file(), lambda: zip((), ())]
    return [*(lambda value=value: value for value in plain), *arrays, *tensors, *used_up]


def open_file() -> io.BytesIO:
    """Return something that is open, in the place of a path."""
    return io.BytesIO(b"no file")


def _calls(label: str, call: Callable, arguments: dict[str, object]) -> Iterator[Target]:
    """Yield a target with good arguments for all parameters that have a name among them."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except ValueError:  # a builtin
        return
    required = [q.name for q in parameters if q.default is q.empty and q.kind not in (q.VAR_POSITIONAL, q.VAR_KEYWORD)]
    missing = [name for name in required if name not in arguments]
    assert not missing, f"{label}: nothing is known to give for {missing}"
    star = [q.name for q in parameters if q.kind is q.VAR_POSITIONAL]
    good = {q.name: arguments[q.name] for q in parameters if q.name in arguments and q.name not in star}
    if label in ("box.points", "families.beside"):
        good.pop("name")  # by which messages call an argument, as long as it is
    if star:  # `grid(*axes)` and the like: one of them

        def one(axes: object, **options: object) -> object:
            return call(axes, **options)

        yield Target(label, one, {"axes": arguments["axes"], **good})
    else:
        yield Target(label, call, good)


def public() -> dict[str, Callable]:
    """Return every public class and function by name: of the package, and of the modules among its names."""
    found = {}
    for name in nm.__all__:
        value = getattr(nm, name)
        if not isinstance(value, ModuleType):
            found[name] = value
            continue
        for inner, member in vars(value).items():
            if inner[0] != "_" and callable(member) and getattr(member, "__module__", "").startswith(value.__name__):
                found[f"{name}.{inner}"] = member
    return found


def targets(folder: Path) -> list[Target]:
    """Return every call: public names, and the public methods of what they make."""
    owners, arguments = _good(folder)
    with contextlib.suppress(ImportError):  # Sionna takes seconds to start, which is nobody's call
        nm.wireless.cdl(**OWN["wireless.cdl"])
    found = []
    for label, call in public().items():
        if label not in NOT_CALLED:
            found += _calls(label, call, {**arguments, **OWN.get(label, {})})
    for name, owner in owners.items():
        for method, member in inspect.getmembers(type(owner), callable):
            own = getattr(member, "__module__", "") or ""
            if own.startswith("neumatc") and (method[0] != "_" or method == "__call__"):
                found += _calls(f"{name}.{method}", getattr(owner, method), arguments)
    return found


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `SlowError` in what takes longer; in the main thread of a POSIX system."""

    def slow(*arguments: object) -> None:
        raise SlowError

    before = signal.signal(signal.SIGALRM, slow)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _shown(target: Target, given: dict[str, object]) -> str:
    """Return a call as a line; of arguments those that are not the good ones."""
    odd = {name: value for name, value in given.items() if target.good.get(name) is not value}
    left = [f"without {name}" for name in target.good if name not in given]
    parts = [f"{name}={' '.join(repr(value).split())[:90]}" for name, value in odd.items()]
    return f"{target.label}({', '.join(parts + left)})"


def _wrong(error: BaseException, documentation: str = "") -> str:
    """Say what is not as documented about an exception; nothing if it is.

    A check that fails raises an AssertionError, and a missing package an ImportError, where the docstring has that
    among its exceptions.
    """
    if isinstance(error, SlowError):
        return f"longer than {SECONDS:g} s"
    text = str(error)
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return ""
    failed = any(isinstance(error, k) and f"{k.__name__}:" in documentation for k in (AssertionError, ImportError))
    if not (failed or isinstance(error, DOCUMENTED)):
        return f"undocumented {type(error).__name__}: {text[:120]}"
    if len(text) > LONGEST or re.search(r"(tensor|array)\(\[[\d\[]", text):
        return f"a message of {len(text)} characters, or with an array: {text[:120]}"
    # Python itself says which argument is missing or unknown.
    explained = failed or "`" in text or re.search(r"argument|abstract class|not callable", text)
    return "" if explained else f"no argument is named: {type(error).__name__}: {text[:120]}"


def one_call(target: Target, given: dict[str, object]) -> tuple[str, str]:
    """Call, and return what happened in a word, and what of it must not."""
    try:
        with _limited(SECONDS), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            value = target.call(**given)
            if inspect.isgenerator(value):
                next(value, None)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return type(error).__name__, _wrong(error, target.call.__doc__ or "")
    return "returned", ""


def calls(count: int = 30_000, seed: int = 0, labels: str = "") -> Outcome:
    """Make random calls with bad arguments.

    Args:
        count: How many.
        seed: Of the draws.
        labels: A regular expression; only names that it matches.
    """
    draw, outcome = random.Random(seed), Outcome()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        chosen, bad = [t for t in targets(Path(folder)) if re.search(labels, t.label)], _values()
        for _ in range(count):
            target = draw.choice(chosen)
            given, names = dict(target.good), list(target.good)
            many = 1 if draw.random() < ONE_BAD else 2
            for name in draw.sample(names, min(many, len(names))):
                if many == 2 and draw.random() < 0.2:
                    given.pop(name, None)
                else:
                    given[name] = draw.choice(bad)()
            kind, wrong = one_call(target, given)
            outcome.counts[kind] += 1
            if wrong:
                outcome.findings.append(f"{_shown(target, given)} -> {wrong}")
    return outcome


def _print(outcome: Outcome, seconds: float) -> int:
    for line in outcome.findings:
        print(line)
    print(f"{sum(outcome.counts.values())} calls in {seconds:.0f} s: {dict(outcome.counts.most_common())}")
    print(f"{len(outcome.findings)} of them did what is not documented")
    return int(bool(outcome.findings))


def main(arguments: list[str] | None = None) -> int:
    """Run a command; see the docstring of this module."""
    parser = argparse.ArgumentParser(prog="python -m studies.abuse")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("calls", help="random calls over every public name, with bad arguments")
    command.add_argument("--count", type=int, default=30_000)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--labels", default="", help="a regular expression of names")
    options = vars(parser.parse_args(arguments))
    run, start = {"calls": calls}[options.pop("command")], time.perf_counter()
    return _print(run(**options), time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
