"""The device that computes, said once. Where it has no float64 (Apple's, some of Intel's), the CPU has that part."""

from __future__ import annotations

import os
from functools import cache

import torch

from mar.core.errors import UserError, unknown
from mar.core.log import aside

NAMES = ("cpu", "cuda", "xpu", "mps")
VARIABLE = "MAR_DEVICE"  # the choice of --device, for this process and those that it starts


def choose(name: str = "") -> str:
    """Return a device: ``name``, else that of MAR_DEVICE, else cuda if there is one, else cpu.

    Raises UserError: the machine, or this installation of torch, has no such device.
    """
    name = name or os.environ.get(VARIABLE, "")
    kind, colon, number = name.partition(":")
    if not kind:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in NAMES:
        raise unknown("device", kind, NAMES)
    if colon and not (number.isascii() and number.isdecimal()):
        raise UserError(f"a device is written cuda or cuda:1, not {name}")
    backend = torch.backends.mps if kind == "mps" else getattr(torch, kind)
    if not backend.is_available():
        raise UserError(f"torch {torch.__version__} sees no {kind} device here: use --device cpu")
    return name


def chosen(name: str = "") -> torch.device:
    """Return the device of ``choose``, and say it. Raises as ``choose``."""
    found = torch.device(choose(name))
    _say(found.type)
    return found


@cache
def _say(kind: str) -> None:
    """Say what computes, once in a process."""
    aside.info(f"computing on {described(kind)}" + ("" if has_float64(kind) else ", float64 on the CPU"))


def described(kind: str) -> str:
    """Return a device in words: its name, or the cores of the CPU."""
    names = {"cuda": torch.cuda.get_device_name, "xpu": torch.xpu.get_device_name, "mps": lambda: "Apple's GPU (mps)"}
    return names[kind]() if kind in names else f"{kind}, {os.cpu_count()} cores"


@cache
def has_float64(kind: str) -> bool:
    """Return False for a type of device that has no float64."""
    return kind != "mps" and (kind != "xpu" or bool(torch.xpu.get_device_properties().has_fp64))


def double(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` in float64: on its device, or on the CPU where that has none."""
    return x.double() if has_float64(x.device.type) else x.cpu().double()


def back(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return ``x`` on a device: as it is, or float64 as float32 where the device has none."""
    if x.dtype == torch.float64 and not has_float64(device.type):
        x = x.float()
    return x.to(device)
