"""Surrogates outside Python: as ONNX models, as MATLAB files and as C headers, from one plain description."""

from neumatc.export.graph import export_onnx

__all__ = ["export_onnx"]
