"""A device without float64 on any machine: CPU tensors that name another device, and refuse what Apple's refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "privateuseone"
_ALONE = ("copy_", "index.Tensor", "index_put", "_to_copy", "_index_put_impl_")  # take tensors of another device


_setup_privateuseone_for_python_backend()
torch.privateuseone.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]


class Fake(torch.Tensor):
    held: torch.Tensor

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> "Fake":
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype, device=NAME
        )
        made.held = real
        return made

    def __repr__(self) -> str:
        return f"Fake({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return answer(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return answer(func, args, kwargs or {})


class _Function(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.tensor and (device := (kwargs or {}).get("device")) is not None:  # it passes no dispatcher
            return torch.tensor(*args, **{**kwargs, "device": "cpu"}).to(device)
        if func is torch.Tensor.tolist and isinstance(args[0], Fake):
            return args[0].held.tolist()
        return func(*args, **(kwargs or {}))


@contextmanager
def fake_device() -> Iterator[str]:
    """Inside the block a device of the yielded name exists."""
    with _Function(), _Dispatch():
        yield NAME


def answer(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors: list[torch.Tensor] = []
    tree_map(lambda x: tensors.append(x) if isinstance(x, torch.Tensor) else None, (args, kwargs))
    ours, asked, name = any(isinstance(x, Fake) for x in tensors), kwargs.get("device"), str(func)
    on_mps = ours if asked is None else torch.device(asked).type == NAME
    if asked is not None and on_mps:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if ours and not any(word in name for word in _ALONE) and any(x.ndim and not isinstance(x, Fake) for x in tensors):
        raise RuntimeError(f"{name}: tensors of two devices")
    args_, kwargs_ = tree_map(lambda x: x.held if isinstance(x, Fake) else x, (args, kwargs))
    found = func(*args_, **kwargs_)
    if (operator := name.split(".")[1]).endswith("_") and not operator.endswith("__"):  # in place
        return args[0]

    def wrapped(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not on_mps:
            return x
        if x.dtype == torch.float64:
            raise TypeError(f"{name}: no float64")
        return Fake(x)

    return tree_map(wrapped, found)
