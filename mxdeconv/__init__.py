"""MXNet's Deconvolution (transposed convolution in 1, 2 and 3 dimensions) for PyTorch.

    import mxdeconv
    up = mxdeconv.Deconvolution(num_filter=16, kernel=(4, 4), stride=(2, 2), pad=(1, 1))
    y = up(x)                                                # (N, C, H, W) -> (N, 16, 2H, 2W)

Start with `mxdeconv.nn` (the module) and `mxdeconv.functional` (the function); `mxdeconv.spec`
says what MXNet's arguments mean. `mxdeconv.porting` carries over whole MXNet models.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch

from mxdeconv._version import __version__


def _load_operators() -> None:
    """Import the compiled operators, or say in one line why they cannot be."""
    rebuild = "run 'pip install --no-build-isolation .' in its source tree"
    if importlib.util.find_spec("mxdeconv._C") is None:
        raise ImportError(f"mxdeconv._C must be built before mxdeconv can be imported: {rebuild}")
    try:
        extension = importlib.import_module("mxdeconv._C")
    except ImportError as error:
        raise ImportError(
            f"mxdeconv._C does not load under torch {torch.__version__}, probably because it was "
            f"built with another torch ({error}): {rebuild}"
        ) from error
    built_with = str(extension.build_info()["torch"])
    if built_with.split("+")[0] != torch.__version__.split("+")[0]:
        raise ImportError(
            f"mxdeconv._C must run under the torch it was built with, {built_with}, "
            f"got torch {torch.__version__}: {rebuild}"
        )


_load_operators()

from mxdeconv import gluon, init, porting  # noqa: E402
from mxdeconv.autograd import DeconvolutionFunction  # noqa: E402
from mxdeconv.convert import replace_conv_transpose, restore_conv_transpose  # noqa: E402
from mxdeconv.diagnostics import build_info, explain  # noqa: E402
from mxdeconv.functional import deconvolution  # noqa: E402
from mxdeconv.minimal_filtering import (  # noqa: E402
    minimal_filtering_enabled,
    set_minimal_filtering,
)
from mxdeconv.nn import Deconvolution  # noqa: E402

__all__ = [
    "Deconvolution",
    "DeconvolutionFunction",
    "__version__",
    "build_info",
    "deconvolution",
    "explain",
    "gluon",
    "init",
    "minimal_filtering_enabled",
    "porting",
    "replace_conv_transpose",
    "restore_conv_transpose",
    "set_minimal_filtering",
]
