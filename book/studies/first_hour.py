"""What users of NumPy, SciPy and torch type in the first hour, run on two fits; and the page that says what happens.

python -m studies.first_hour      rewrite book/first_hour.md
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

import neumatc as nm

PAGE = Path(__file__).parents[1] / "first_hour.md"
# Largest difference that counts as right: both fits are good to 1e-8 or better.
CLOSE = 1e-6
# So far beside a face between pieces, in the units of the parameter.
BESIDE = 1e-9

SETUP = """\
import copy, numpy as np, scipy.sparse as sp, torch, neumatc as nm

def one(x):                                   # one matrix at a time, in NumPy
    return np.array([[2 + np.cos(x), 0.3], [0.1, 3 - np.sin(x)]])

def many(p):                                  # p (B, 1) -> (B, 2, 2), in torch
    x = p[:, 0]
    return torch.stack([2 + x.cos(), 0.3 + 0 * x, 0.1 + 0 * x, 3 - x.sin()], dim=1).view(-1, 2, 2)

def slope(x):                                 # of the matrix along the parameter
    return np.array([[-np.sin(x), 0.0], [0.0, -np.cos(x)]])

family = nm.ParametricMatrix(one, 0.0, 3.0, batched=False)
problem = nm.Problem(family, nm.Inverse())
"""

# The two fits of every line: one map for the whole box, and pieces.
FITS = {"rank": "nm.fit(problem, rank=4, progress=False)", "tol": "nm.fit(problem, tol=1e-8, rank=8, progress=False)"}


@dataclass(frozen=True)
class Line:
    """A line that is typed.

    Attributes:
        code: An expression of the names of `SETUP`, ``surrogate``, five parameters ``p`` as an array and ``t`` as a
            tensor, and ``X = surrogate(p)``.
        right: What must hold of its value ``_``; other names are ``exact``, the inverses at ``p``, and ``close``.
        error: What it raises; None where it has a value.
    """

    code: str
    right: str = "True"
    error: type[Exception] | None = None


LINES = (
    Line("nm.ParametricMatrix(one, 0.0, 3.0)", error=nm.FamilyError),
    Line("nm.ParametricMatrix(one, 0.0, 3.0, batched=False)", "close(_(p), family(p))"),
    Line("nm.ParametricMatrix(many, 0.0, 3.0, dtype=torch.float64)", "close(_(p), family(p))"),
    Line("nm.ParametricMatrix(many, np.array([0.0]), np.array([3.0]))", "close(_(p), family(p))"),
    Line("nm.ParametricMatrix(lambda p: np.stack([one(x) for x in p[:, 0].numpy()]), np.zeros(1), [3.0])"),
    Line("nm.ParametricMatrix(lambda x: sp.csr_array(one(x)), 0, 3, batched=False)", "close(_(p), family(p))"),
    Line("nm.ParametricMatrix(lambda x: one(x).tolist(), 0, 3, batched=False)", "close(_(p), family(p))"),
    Line("nm.ParametricMatrix(lambda p: many(p).to_sparse(), 0.0, 3.0)"),
    Line("nm.ParametricMatrix(lambda p: np.diag(1 + p), [0.0, 0.0], [1.0, 1.0], batched=False)"),
    Line("nm.families.from_samples(p, family(p))", "close(_(p), family(p))"),
    Line("nm.fit(problem, tol=1e-3, progress=False)", "_.report.met"),
    Line("nm.fit(problem)", error=ValueError),
    Line("nm.fit(one, tol=1e-3)", error=TypeError),
    Line("surrogate(0.5)", "close(_, np.linalg.inv(one(0.5))[None])"),
    Line("surrogate(3)", "close(_, np.linalg.inv(one(3))[None])"),
    Line("surrogate(np.float64(0.5))", "close(_, np.linalg.inv(one(0.5))[None])"),
    Line("surrogate(p)", "close(_, exact)"),
    Line("surrogate(p.tolist())", "close(_, exact)"),
    Line("surrogate(t)", "close(_, exact)"),
    Line("surrogate(t[:, None].float())", "(_ - torch.as_tensor(exact)).abs().max() < 1e-5"),
    Line("surrogate([[0.5], [1.5]])", "close(_, np.linalg.inv([one(0.5), one(1.5)]))"),
    Line("surrogate(np.arange(4))", "close(_, np.linalg.inv([one(x) for x in range(4)]))"),
    Line("surrogate(7.0)", error=ValueError),
    Line("surrogate(np.ones((5, 2)))", error=ValueError),
    Line("surrogate(np.array([0.5j]))", error=TypeError),
    Line("problem.exact(p).value", "close(_, exact)"),
    Line("problem.error(p, X)", "_.max() < 1e-6"),
    Line("problem.residual(t, torch.as_tensor(X))", "_.max() < 1e-6"),
    Line("nm.certify(surrogate, problem, p).value", "close(_, exact)"),
    Line("nm.fit(nm.Problem(family, nm.SVD()), rank=4, progress=False)(p).S", "_.shape == (5, 2)"),
    Line(
        "torch.func.vmap(torch.func.jacrev(lambda q: surrogate(q[None])[0]))(t[:, None])[..., 0]",
        "(_ + torch.as_tensor(exact @ np.stack([slope(x) for x in p]) @ exact)).abs().max() < 1e-5",
    ),
    Line("surrogate(t.requires_grad_()).sum().backward()", "(t.grad - slopes.sum((1, 2))).abs().max() < 1e-5"),
    Line("copy.deepcopy(surrogate)(p)", "close(_, X)"),
    Line("surrogate.load_state_dict(surrogate.state_dict())", "close(surrogate(p), X)"),
    Line("surrogate.to(torch.float32)(p)", "np.abs(_ - X).max() < 1e-5"),
    Line("torch.compile(surrogate, fullgraph=True, backend='aot_eager')(t)", "close(_, exact)"),
)


def namespace(fit: str) -> dict[str, object]:
    """Return the names that lines use, for one of `FITS`: parameters are ends, a face of the pieces, and beside it."""
    names: dict[str, object] = {"copy": copy, "np": np, "sp": sp, "torch": torch, "nm": nm}
    exec(SETUP, names)
    surrogates = {name: eval(code, names) for name, code in FITS.items()}
    face = surrogates["tol"].pieces[1].lower[0]
    p = np.array([0.0, face - BESIDE, face, face + BESIDE, 2.9])
    exact = np.linalg.inv(np.stack([names["one"](x) for x in p]))
    slopes = -exact @ np.stack([names["slope"](x) for x in p]) @ exact
    surrogate = surrogates[fit]
    own = {"surrogate": surrogate, "p": p, "t": torch.as_tensor(p), "X": surrogate(p), "exact": exact}
    return {**names, **own, "slopes": torch.as_tensor(slopes), "close": lambda x, y: np.abs(x - y).max() < CLOSE}


def outcome(line: Line, names: dict[str, object]) -> str:
    """Run a line and return what happens, in words; AssertionError if that is not right."""
    own = {**names, "surrogate": copy.deepcopy(names["surrogate"]), "t": names["t"].clone()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy deprecates how torch meets code for one number
            value = eval(line.code, own)
    except Exception as error:
        if line.error is None or not isinstance(error, line.error):
            raise
        return f"`{type(error).__name__}`: {error}"
    assert line.error is None, f"{line.code} raised nothing"
    assert eval(line.right, {**own, "_": value.detach().numpy() if _is_close(line, value) else value}), line.code
    return described(value)


def _is_close(line: Line, value: object) -> bool:
    return isinstance(value, torch.Tensor) and line.right.startswith("close(_")


def described(value: object) -> str:
    """Return the kind of a value in words, without numbers that a processor rounds."""
    if isinstance(value, torch.Tensor):
        return f"tensor {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.ndarray):
        return f"array {value.shape}, {value.dtype}"
    if isinstance(value, nm.ParametricMatrix):
        return f"`{value!r}`"
    return (
        "a surrogate" if isinstance(value, nm.Surrogate) else f"`{value}`" if value is not None else "nothing, as torch"
    )


def rendered(outcomes: dict[str, str]) -> str:
    """Return the page for what happened, by line."""
    rows = "\n".join(f"| `{code}` | {text} |" for code, text in outcomes.items())
    return f"""# The first hour

What a user of NumPy, SciPy or torch types first, and what happens. Tests run every line on one map for the whole box
and on a fit in pieces, at a face between two pieces and beside it, check the values, and compare this page with
what came (`python -m studies.first_hour`).

```python
{SETUP}surrogate = {FITS["rank"]}      # or:
surrogate = {FITS["tol"]}
p = np.linspace(0.0, 2.9, 5)                  # five parameters
t, X = torch.as_tensor(p), surrogate(p)
```

| You type | What happens |
|---|---|
{rows}
"""


def main() -> None:
    """Rewrite the page."""
    names = namespace("tol")
    PAGE.write_text(rendered({line.code: outcome(line, names) for line in LINES}), "utf-8")


if __name__ == "__main__":
    main()
