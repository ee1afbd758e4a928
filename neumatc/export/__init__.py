"""Surrogates outside Python: as ONNX models, as MATLAB files and as C headers, from one plain description."""

from neumatc.export.graph import export_onnx
from neumatc.export.header import save_c
from neumatc.export.matlab import save_mat

__all__ = ["export_onnx", "save_c", "save_mat"]
