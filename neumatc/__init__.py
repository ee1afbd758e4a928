"""NeuMatC: learn how a matrix operation's result depends on a continuous parameter, then evaluate it anywhere.

The model is X(p) = C x_3 Phi(p): a latent tensor times a small embedding of the parameter, evaluated for a batch of
parameters as one matrix product (arXiv 2511.22934).
"""

from neumatc import benchmark, families, linalg, lowrank, peers, sampling, wireless
from neumatc.closed_form import ClosedForm
from neumatc.embeddings import Chebyshev, Embedding, FourierExtension, RadialBasis, SinusoidalMLP, Spline
from neumatc.families import FamilyError, ParametricMatrix
from neumatc.fitting import fit, fit_many
from neumatc.methods import Method, Task
from neumatc.model import FactorMap, Surrogate
from neumatc.operations import SVD, Factor, Inverse, LinearOperation, Operation, SVDFactors
from neumatc.problem import Problem, Solution
from neumatc.report import Report, Round, StopReason
from neumatc.report import library_version as _library_version
from neumatc.sampling import FailureEstimate, FailureInformedSampling
from neumatc.storage import load, save
from neumatc.training import ResidualTraining

__version__ = _library_version()

__all__ = [
    "SVD",
    "Chebyshev",
    "ClosedForm",
    "Embedding",
    "Factor",
    "FactorMap",
    "FailureEstimate",
    "FailureInformedSampling",
    "FamilyError",
    "FourierExtension",
    "Inverse",
    "LinearOperation",
    "Method",
    "Operation",
    "ParametricMatrix",
    "Problem",
    "RadialBasis",
    "Report",
    "ResidualTraining",
    "Round",
    "SVDFactors",
    "SinusoidalMLP",
    "Solution",
    "Spline",
    "StopReason",
    "Surrogate",
    "Task",
    "benchmark",
    "families",
    "fit",
    "fit_many",
    "linalg",
    "load",
    "lowrank",
    "peers",
    "sampling",
    "save",
    "wireless",
]
