"""What the examples share: the extra packages they need, photographs, and a plain plot style.

``import mxdeconv`` needs torch only. The examples also read photographs and draw, so the packages
for that are looked for here, before anything is computed, and named in one line when missing.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch

# module name -> name on the package index
_PACKAGES = {
    "numpy": "numpy",
    "matplotlib": "matplotlib",
    "skimage": "scikit-image",
    "PIL": "pillow",
    "tqdm": "tqdm",
    "mxdeconv": "mxdeconv",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
}

INK = "#1f2430"
BLUE = "#2f6db5"
ORANGE = "#d9762b"
GREEN = "#3f8f5f"
GREY = "#9aa1ad"


def require(*modules: str) -> None:
    """Exit with one line that names the packages among ``modules`` that are not installed."""
    missing = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:  # the package is there and is itself broken: say what it says
                raise
            missing.append(_PACKAGES[module])
    if missing:
        script = Path(sys.argv[0]).name
        sys.exit(
            f"{script}: needs {', '.join(missing)}: in the project's folder run "
            "`pip install --no-build-isolation '.[examples]'`"
        )


def pyplot() -> Any:
    """matplotlib.pyplot that writes files and opens no window, in the examples' style."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 130,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "legend.frameon": False,
        }
    )
    return plt


def progress(items: Any, description: str, unit: str) -> Any:
    """A tqdm bar over ``items``; where the output is a file, a new line only now and then."""
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 20.0
    return tqdm(items, desc=description, unit=unit, mininterval=interval, maxinterval=60)


def photograph(file_name: str) -> torch.Tensor:
    """A photograph of scikit-image's own package folder as float32 (3, height, width) in [0, 1].

    Only files that lie inside the installed package are read: ``skimage.data.astronaut()`` and its
    like may download, this never does. Grey photographs come with three equal channels.
    """
    import numpy
    import skimage
    from PIL import Image

    path = Path(skimage.__file__).parent / "data" / file_name
    if not path.is_file():
        sys.exit(
            f"{Path(sys.argv[0]).name}: scikit-image {skimage.__version__} does not bring "
            f"{file_name} in its package; scikit-image 0.22 to 0.26 do"
        )
    with Image.open(path) as image:
        pixels = numpy.asarray(image.convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(torch.float32) / 255.0


# Rec. 601 full range, the YCbCr of JPEG and of most super-resolution papers.
_RGB_TO_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def rgb_to_ycc(rgb: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) RGB in [0, 1] -> luminance in [0, 1] and two colour planes around 0."""
    return torch.einsum("ij,...jhw->...ihw", _RGB_TO_YCC, rgb)


def ycc_to_rgb(ycc: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`rgb_to_ycc`, clipped to [0, 1]."""
    return torch.einsum("ij,...jhw->...ihw", torch.linalg.inv(_RGB_TO_YCC), ycc).clamp(0, 1)


def luminance(rgb: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) RGB -> (..., 1, H, W) luminance in [0, 1]."""
    return rgb_to_ycc(rgb)[..., :1, :, :]
