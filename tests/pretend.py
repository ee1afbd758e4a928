"""A device that is not there: tensors that say they are on CUDA, with their numbers in the memory of the CPU.

The library takes the same ways with them as on a GPU, and every time that a GPU would have to be waited for is counted.
"""

import inspect
import traceback
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda:0")
# What has to know numbers before it can go on: a number for Python, or how large a result is.
_WAITS = {
    "_local_scalar_dense",
    "_linalg_check_errors",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "equal",
    "bincount",
}
# Views and the like, for which nothing is launched.
_FREE = {"empty", "empty_like", "new_empty", "empty_strided", "detach", "lift_fresh", "_conj", "_neg_view"}
# What may take indices from the CPU, which are copied then.
_INDEXED = {"index", "index_put_", "index_put", "_index_put_impl_"}


class Pretended(torch.Tensor):
    """A tensor that says it is on the device."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, data):
        own = torch.Tensor._make_wrapper_subclass(
            cls, data.size(), strides=data.stride(), dtype=data.dtype, device="meta", requires_grad=False
        )
        own.data_ = data
        return own

    # To torch's own code it is on a device without memory: of CUDA a build without it knows nothing.
    device, is_cuda, is_cpu, is_meta = DEVICE, True, False, False

    def numpy(self, force=False):
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.cpu().numpy()

    def __array__(self, *arguments, **options):
        return self.numpy()

    def tolist(self):
        return self.cpu().tolist()

    def data_ptr(self):
        return self.data_.data_ptr()

    def __repr__(self):
        return f"Pretended({self.data_!r})"

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        raise RuntimeError(f"{function} on the device, outside `Pretend`")


class Pretend(TorchDispatchMode):
    """While it is entered, "cuda:0" is a device.

    Attributes:
        waits: How often the host waits for the device, by operation and the line of the library that asks.
        launches: How often operations were started on the device, by name.
        sent: How often numbers were sent to the device.
        products: Dtypes of the factors of products, each with torch's setting for those of single precision.
    """

    def __init__(self):
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE  # torch then does not look for CUDA
        self.waits, self.launches, self.sent, self.products = Counter(), Counter(), Counter(), set()

    def __enter__(self):
        self._before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes its numbers on the CPU, and sends them
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(self._before)
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        schema, flat = function._schema, tree_flatten((arguments, options))[0]
        name = schema.name.removeprefix("aten::")
        on_device = [x for x in flat if isinstance(x, Pretended)]
        wanted = options.get("device")
        target = torch.device(wanted).type if wanted is not None else "cuda" if on_device else "cpu"
        if not on_device and target == "cpu":
            return function(*arguments, **options)
        tensors = [x for x in flat if isinstance(x, torch.Tensor)]
        beside = [x for x in tensors if not isinstance(x, Pretended) and x.ndim]
        self._moved(name, arguments, on_device, beside, target)
        if name in _WAITS or (name == "repeat_interleave" and options.get("output_size") is None):
            self._count(self.waits, name)
        elif name in _INDEXED and any(x is not None and x.dtype == torch.bool for x in arguments[1]):
            self._count(self.waits, f"{name} by a mask")
        if name not in _FREE and not function.is_view:
            self.launches[name] += 1
        plain = tree_map(lambda x: x.data_ if isinstance(x, Pretended) else x, (arguments, options))
        if "device" in plain[1]:
            plain[1]["device"] = torch.device("cpu")
        if name in ("mm", "bmm"):
            self.products.add((arguments[0].dtype, torch.backends.cuda.matmul.fp32_precision))
        # What torch makes lazily, it would resolve above this place.
        function = {"_conj": torch.conj_physical, "_neg_view": torch.neg}.get(name, function)
        if name in ("mm", "bmm") and "dtype" in schema.overload_name:  # which a CPU has not
            function = _wide
        found = function(*plain[0], **plain[1])
        if schema.is_mutable:
            given = arguments[0] if "out" not in options else options["out"]
            return given if isinstance(found, torch.Tensor) else found
        if target == "cpu" or name in ("_local_scalar_dense", "equal"):
            return found
        return tree_map(lambda x: Pretended(x) if isinstance(x, torch.Tensor) else x, found)

    def _moved(self, name, arguments, on_device, beside, target):
        """Count what goes to the device and back; raise where an operation takes tensors of both places."""
        first = isinstance(arguments[0], Pretended) if arguments else False
        if name in ("_to_copy", "copy_"):
            if on_device and (target == "cpu" or (name == "copy_" and not first)):
                self._count(self.waits, f"{name} to the CPU")
            elif beside or not on_device:
                self._count(self.sent, name)
        elif beside and name in _INDEXED and first:
            self._count(self.sent, name)
        elif beside and on_device:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, got {DEVICE} and cpu")

    def _count(self, counter, name):
        counter[f"{name} {_asked()}"] += 1


def _wide(a, b, dtype, out=None):
    """Return a product in another precision than that of its factors."""
    value = a.to(dtype) @ b.to(dtype)
    return value if out is None else out.copy_(value)


def _asked():
    """Name the line of the library that asks."""
    for frame in traceback.walk_stack(inspect.currentframe()):
        path = frame[0].f_code.co_filename
        if "/neumatc/" in path and "site-packages" not in path:
            return f"{path.rpartition('/neumatc/')[2]}:{frame[1]} {frame[0].f_code.co_name}"
    return "tests"
