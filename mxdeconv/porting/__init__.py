"""MXNet models as PyTorch modules, without MXNet.

from mxdeconv import porting
module = porting.load_checkpoint("model", 0)    # model-symbol.json, model-0000.params
print(porting.compare(module, "recorded.npz"))  # against what MXNet computed
"""

from mxdeconv.porting.params import Params, ParamsError, load_params, save_params

__all__ = ["Params", "ParamsError", "load_params", "save_params"]
