"""Make torchvision importable. Import this module before timm, diffusers or torch_fidelity.

PyPI's torchvision is built for CUDA. Beside a CPU build of torch its extension does not load, and
``import torchvision`` raises "operator torchvision::nms does not exist". Declaring these operators
is enough for everything except ``ops.nms`` and ``io.decode_*``; images are read with Pillow here.
A working torchvision is left unchanged.
"""

from __future__ import annotations

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a Library takes its operators with it when it is collected


def repair() -> bool:
    """Import torchvision and declare missing operators. Return True if operators were declared."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(operator + _SCHEMA)
        _declared.append(library)
        import torchvision  # noqa: F401
    return bool(_declared)


repaired = repair()
