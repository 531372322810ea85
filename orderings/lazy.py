"""torch, loaded when it is first used.

Names, options and texts of plans need no tensor, and loading torch takes two seconds of processor time: so
``mar orderings list`` and every refusal of a name answer at once. Modules of this package import torch from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Torch:
        def __getattr__(self, name: str) -> Any:
            import torch

            value = getattr(torch, name)
            setattr(self, name, value)  # the next access finds it without this function
            return value

    torch = _Torch()
