"""Values of parameters for a symbol without a parameter file."""

from __future__ import annotations

import torch
from torch import Tensor

from mxdeconv import init

#: GluonCV's own initializer of its upsampling layers, which computes the same.
_ALIASES = {'["bilinearupsample", {}]': "bilinearupsampling"}


def initial_value(name: str, attrs: dict[str, str], shape: tuple[int, ...]) -> Tensor:
    """What `mx.mod.Module.init_params` would draw: by the variable's `__init__` or its name."""
    value = torch.empty(shape)
    text = attrs.get("__init__")
    if text:
        init.create(f"__init__ of {name}", _ALIASES.get(text, text))(value)
    elif name.endswith(("_gamma", "_moving_var", "_running_var")):
        value.fill_(1.0)
    elif name.endswith(("_bias", "_beta", "_moving_mean", "_running_mean")):
        value.fill_(0.0)
    else:
        init.Uniform()(value)
    return value
