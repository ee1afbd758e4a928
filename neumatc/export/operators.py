"""Operators of ONNX, and what is made of a few of them."""

from __future__ import annotations

import numpy as np


class Operators:
    """Nodes and constants. A call adds a node and returns the name of what it gives; arrays become constants.

    Args:
        onnx: The package.
    """

    def __init__(self, onnx: object):
        self.onnx, self.nodes, self.constants, self.outputs = onnx, [], [], []

    def __call__(self, operator: str, *inputs: object, **attributes: object) -> str:
        names = [x if isinstance(x, str) else self.constant(np.asarray(x)) for x in inputs]
        count, name = attributes.pop("outputs", 1), attributes.pop("name", f"v_{len(self.nodes)}")
        given = [f"{name}_{k}" for k in range(1, count)] + [name]  # of several the last is meant
        self.nodes.append(self.onnx.helper.make_node(operator, names, given, **attributes))
        return name

    def constant(self, x: np.ndarray) -> str:
        self.constants.append((f"c_{len(self.constants)}", x))
        return self.constants[-1][0]

    def cast(self, x: str, kind: np.dtype | type) -> str:
        return self("Cast", x, to=self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def filled(self, value: float, count: int) -> str:
        """The same number everywhere, (B, count)."""
        batch = self("Gather", self("Shape", "p"), np.array([0]), axis=0)
        return self("Expand", np.array(value), self("Concat", batch, np.array([count]), axis=0))

    def column(self, x: str, i: int) -> str:
        """Column i of (B, K) as (B, 1)."""
        return self("Gather", x, np.array([i]), axis=1)

    def shaped(self, x: str, *shape: int) -> str:
        """Reshape (B, ...) to (B, *shape)."""
        return self("Reshape", x, np.array([0, *shape]))

    def shifted(self, x: str, by: int) -> str:
        """Columns moved to the right, or left, ones in their place."""
        return self("Pad", x, np.array([0, by, 0, -by]), np.float64(1))

    def before(self, x: str, count: int, sign: int = 1) -> str:
        """The product of all columns to the left of each of ``count``, or for sign -1 to the right; (B, count)."""
        x, step = self.shifted(x, sign), 1
        while step < count:
            x, step = self("Mul", x, self.shifted(x, sign * step)), 2 * step
        return x

    def along(self, x: str, order: str) -> str:
        return self("GatherElements", x, order, axis=1)

    def top(self, x: str, k: int) -> str:
        """Return the places of the k largest of each row, the largest first."""
        return self("TopK", x, np.array([k]), axis=1, outputs=2)
