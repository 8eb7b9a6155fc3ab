"""Let the reference packages import where torchvision's compiled part does not fit the installed torch.

The reference packages import torchvision for box suppression and image resizing. A torchvision built for
CUDA cannot register its operators beside a CPU build of torch, and then fails at import because the
operator ``nms`` is unknown. Declaring that operator first is enough: the comparison never calls it.
Import this module before any reference package.
"""

import torch

_declared: torch.library.Library | None = None


def _never_called(*_args: object) -> torch.Tensor:
    raise NotImplementedError("box suppression is not part of the comparison")


def install() -> None:
    """Declare the operators that torchvision registers shapes for, once and only where they are missing."""
    global _declared
    if _declared is not None or hasattr(torch.ops.torchvision, "nms"):
        return
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.impl(name, _never_called, "CPU")
