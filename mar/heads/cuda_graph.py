"""Evaluations of a denoiser as CUDA graphs: a chain makes hundreds of them, each of many small kernels.

N rows (a token at a timestep) · E token channels · W width

Replaying a graph launches all kernels of an evaluation at once, so the processor no longer limits a chain.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

Evaluate = Callable[[Tensor, Tensor], Tensor]  # (x_NE, t of shape (1,)) -> (N, outputs)

_KEPT = 32  # graphs, of different numbers of rows; their memory is shared
_WARM_UP = 3  # evaluations before a capture, as CUDA libraries require


class CudaGraphCache:
    """The CUDA graphs of one network. Changed weights are copied again, in the type of autocast."""

    def __init__(self) -> None:
        self.twin: nn.Module | None = None
        self.seen: list[tuple[int, int]] = []
        self.graphs: OrderedDict[tuple[Any, ...], _Graph] = OrderedDict()
        self.dtype: torch.dtype | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> CudaGraphCache:
        return CudaGraphCache()

    def bind(self, net: nn.Module, condition_NW: Tensor) -> Evaluate:
        """Return ``net(x_NE, t, condition_NW)`` without gradients as a function of x and t, until the next ``bind``."""
        watched = _get_current_dispatch_mode() is not None  # a dispatch mode counts operations, which a replay hides
        if not condition_NW.is_cuda or watched or torch.cuda.is_current_stream_capturing():
            return lambda x_NE, t_1: net(x_NE, t_1, condition_NW)
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else torch.float32
        twin = self._twin(net, dtype)

        def evaluate(x_NE: Tensor, t_1: Tensor) -> Tensor:
            key = (x_NE.shape, x_NE.dtype, t_1.dtype, condition_NW.dtype, condition_NW.device)
            graph = self.graphs.pop(key, None) or _Graph(twin, x_NE, t_1, condition_NW)
            self.graphs[key] = graph
            if len(self.graphs) > _KEPT:
                self.graphs.popitem(last=False)
            return graph.replay(x_NE, t_1, condition_NW)

        return evaluate

    def _twin(self, net: nn.Module, dtype: torch.dtype) -> nn.Module:
        if self.twin is None or self.dtype != dtype:
            self.graphs.clear()
            self.twin, self.dtype, self.seen = copy.deepcopy(net).requires_grad_(False), dtype, []
            for module in self.twin.modules():
                if isinstance(module, nn.Linear):
                    module.to(dtype)
            if net._compiled_call_impl is not None:
                self.twin.compile(dynamic=True)
        seen = [(p.data_ptr(), p._version) for p in net.parameters()]
        if seen != self.seen:
            torch._foreach_copy_(list(self.twin.parameters()), list(net.parameters()))
            self.seen = seen
        return self.twin


class _Graph:
    """One capture: inputs are copied to fixed places in memory, and the output is read from one."""

    pools: dict[torch.device, Any] = {}  # noqa: RUF012 - one for all: graphs never run at the same time

    def __init__(self, net: nn.Module, x_NE: Tensor, t_1: Tensor, condition_NW: Tensor) -> None:
        self.inputs = [tensor.clone() for tensor in (x_NE, t_1, condition_NW)]
        self.condition: Tensor | None = None
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                net(*self.inputs)
        torch.cuda.current_stream().wait_stream(aside)
        pool = self.pools.setdefault(x_NE.device, torch.cuda.graph_pool_handle())
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.out = net(*self.inputs)

    def replay(self, x_NE: Tensor, t_1: Tensor, condition_NW: Tensor) -> Tensor:
        self.inputs[0].copy_(x_NE)
        self.inputs[1].copy_(t_1)
        if condition_NW is not self.condition:  # once for all timesteps of a chain
            self.inputs[2].copy_(condition_NW)
            self.condition = condition_NW
        self.graph.replay()
        return self.out.clone()
