"""NeuMatC: learn how a matrix operation's result depends on a continuous parameter, then evaluate it anywhere.

The model is X(p) = C x_3 Phi(p): a latent tensor times a small embedding of the parameter, evaluated for a batch of
parameters as one matrix product (arXiv 2511.22934).
"""

from neumatc import families, gauge, linalg, lowrank, peers, sampling, testing, wireless
from neumatc.advice import FitWarning
from neumatc.box import Box
from neumatc.certification import Certified, certify
from neumatc.closed_form import ClosedForm
from neumatc.embeddings import Chebyshev, Embedding, Piece, SinusoidalMLP
from neumatc.export import export_onnx, save_c, save_mat
from neumatc.factorizations import QR, Cholesky, Polar, PolarFactors, Projector, QRFactors, Subspace
from neumatc.failure import FailureEstimate, FailureInformedSampling
from neumatc.families import FamilyError, ParametricMatrix
from neumatc.fitting import fit, fit_many
from neumatc.local import PiecewisePolynomials, Rational, SparsePolynomials
from neumatc.methods import Method, Task
from neumatc.model import FactorMap, Surrogate
from neumatc.operations import (
    LMMSE,
    RZF,
    Factor,
    Inverse,
    LinearOperation,
    LogDet,
    LogDetFactors,
    MatrixFunction,
    Operation,
    PseudoInverse,
    RegularizedInverse,
    Solve,
)
from neumatc.pieces import Pieces
from neumatc.problem import Problem, Solution
from neumatc.receivers import Equaliser, EqualiserFactors
from neumatc.report import Event, Report, Round, StopReason, Unmet
from neumatc.report import library_version as _library_version
from neumatc.spectral import SVD, Eig, EigFactors, Eigh, SVDFactors
from neumatc.storage import load, save
from neumatc.training import ResidualTraining

__version__ = _library_version()

# The classes and functions above, and the modules that users name.
_MODULES = {"families", "gauge", "linalg", "lowrank", "peers", "sampling", "testing", "wireless"}
__all__ = sorted(_MODULES | {name for name, value in vars().items() if callable(value) and name[0] != "_"})
