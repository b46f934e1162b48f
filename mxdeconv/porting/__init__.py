"""MXNet models as PyTorch modules, without MXNet.

    from mxdeconv import porting
    module = porting.load_checkpoint("model", 0)    # model-symbol.json, model-0000.params
    print(porting.compare(module, "recorded.npz"))  # against what MXNet computed

`params` reads and writes MXNet's files of arrays, `symbol` its graphs, `operators` is the table of
what each of its operators becomes; `comparison`, `conversion` and `cli` are what users do with a
port.
"""

from mxdeconv.porting.agreement import Agreement
from mxdeconv.porting.checkpoint import load_checkpoint
from mxdeconv.porting.comparison import Comparison, compare
from mxdeconv.porting.conversion import ConversionError, Converted, convert
from mxdeconv.porting.module import PortedModule, parameter_groups
from mxdeconv.porting.params import Params, ParamsError, load_params, save_params
from mxdeconv.porting.symbol import (
    PortingError,
    Symbol,
    infer_shapes,
    load_symbol,
    parse_symbol,
    unsupported,
)

__all__ = [
    "Agreement",
    "Comparison",
    "ConversionError",
    "Converted",
    "Params",
    "ParamsError",
    "PortedModule",
    "PortingError",
    "Symbol",
    "compare",
    "convert",
    "infer_shapes",
    "load_checkpoint",
    "load_params",
    "load_symbol",
    "parameter_groups",
    "parse_symbol",
    "save_params",
    "unsupported",
]
