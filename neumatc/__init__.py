"""NeuMatC: learn how a matrix operation's result depends on a continuous parameter, then evaluate it anywhere.

The model is X(p) = C x_3 Phi(p): a latent tensor times a small embedding of the parameter, evaluated for a batch of
parameters as one matrix product (arXiv 2511.22934).
"""

from neumatc import benchmark, families, gauge, linalg, lowrank, peers, sampling, wireless
from neumatc.box import Box
from neumatc.certification import Certified, certify
from neumatc.closed_form import ClosedForm
from neumatc.embeddings import Chebyshev, Embedding, FourierExtension, Piece, RadialBasis, SinusoidalMLP
from neumatc.factorizations import (
    QR,
    SVD,
    Cholesky,
    Eig,
    EigFactors,
    Eigh,
    EighFactors,
    Polar,
    PolarFactors,
    Projector,
    QRFactors,
    Subspace,
    SVDFactors,
)
from neumatc.failure import FailureEstimate, FailureInformedSampling
from neumatc.families import FamilyError, ParametricMatrix
from neumatc.fitting import FitWarning, fit, fit_many
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
from neumatc.report import Event, Report, Round, StopReason, Unmet
from neumatc.report import library_version as _library_version
from neumatc.storage import load, save
from neumatc.training import ResidualTraining

__version__ = _library_version()

__all__ = [
    "LMMSE",
    "QR",
    "RZF",
    "SVD",
    "Box",
    "Certified",
    "Chebyshev",
    "Cholesky",
    "ClosedForm",
    "Eig",
    "EigFactors",
    "Eigh",
    "EighFactors",
    "Embedding",
    "Event",
    "Factor",
    "FactorMap",
    "FailureEstimate",
    "FailureInformedSampling",
    "FamilyError",
    "FitWarning",
    "FourierExtension",
    "Inverse",
    "LinearOperation",
    "LogDet",
    "LogDetFactors",
    "MatrixFunction",
    "Method",
    "Operation",
    "ParametricMatrix",
    "Piece",
    "Pieces",
    "PiecewisePolynomials",
    "Polar",
    "PolarFactors",
    "Problem",
    "Projector",
    "PseudoInverse",
    "QRFactors",
    "RadialBasis",
    "Rational",
    "RegularizedInverse",
    "Report",
    "ResidualTraining",
    "Round",
    "SVDFactors",
    "SinusoidalMLP",
    "Solution",
    "Solve",
    "SparsePolynomials",
    "StopReason",
    "Subspace",
    "Surrogate",
    "Task",
    "Unmet",
    "benchmark",
    "certify",
    "families",
    "fit",
    "fit_many",
    "gauge",
    "linalg",
    "load",
    "lowrank",
    "peers",
    "sampling",
    "save",
    "wireless",
]
