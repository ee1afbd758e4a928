"""NeuMatC: learn how a matrix operation's result depends on a continuous parameter, then evaluate it anywhere.

The model is X(p) = C x_3 Phi(p): a latent tensor times a small embedding of the parameter, evaluated for a batch of
parameters as one matrix product (arXiv 2511.22934).
"""

from neumatc import benchmark, families, linalg, sampling, wireless
from neumatc.embeddings import Embedding, SinusoidalMLP
from neumatc.families import FamilyError, ParametricMatrix
from neumatc.fitting import Method, ResidualTraining, fit
from neumatc.model import FactorMap, Surrogate
from neumatc.operations import SVD, Factor, Inverse, Operation, SVDFactors
from neumatc.problem import Problem, Solution
from neumatc.report import Report, Round, StopReason
from neumatc.report import library_version as _library_version
from neumatc.sampling import FailureEstimate, FailureInformedSampling
from neumatc.storage import load, save

__version__ = _library_version()

__all__ = [
    "SVD",
    "Embedding",
    "Factor",
    "FactorMap",
    "FailureEstimate",
    "FailureInformedSampling",
    "FamilyError",
    "Inverse",
    "Method",
    "Operation",
    "ParametricMatrix",
    "Problem",
    "Report",
    "ResidualTraining",
    "Round",
    "SVDFactors",
    "SinusoidalMLP",
    "Solution",
    "StopReason",
    "Surrogate",
    "benchmark",
    "families",
    "fit",
    "linalg",
    "load",
    "sampling",
    "save",
    "wireless",
]
