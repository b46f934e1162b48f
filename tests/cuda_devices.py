"""What tests of the CUDA engine need to know: what was built, and whether there is a device."""

from __future__ import annotations

import json

import pytest
import torch

import mxdeconv
import mxdeconv._C as _C

BUILT = bool(mxdeconv.build_info()["cuda"])
needs_build = pytest.mark.skipif(not BUILT, reason="mxdeconv was built without CUDA")
needs_cudnn = pytest.mark.skipif(
    not hasattr(_C, "survey_cudnn"), reason="mxdeconv was built without cuDNN's headers"
)


def require_device() -> None:
    """Skips the module that is being imported, with the reason."""
    if not BUILT:
        pytest.skip("mxdeconv was built without CUDA", allow_module_level=True)
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device", allow_module_level=True)


# An H200 as cuDNN describes one: plans can be made for it on a machine without any device.
H200 = json.dumps(
    {
        "deviceName": "NVIDIA H200",
        "cudaDeviceId": 0,
        "deviceVer": 900,
        "driverVer": 13000,
        "multiProcessorCount": 132,
        "totalGlobalMem": 150_000_000_000,
        "maxGridSize": [2**31 - 1, 65535, 65535],
        "maxBlockSize": [1024, 1024, 64],
        "maxThreadsPerBlock": 1024,
        "maxThreadsPerSM": 2048,
        "maxCtasPerSM": 32,
        "maxSharedMemoryPerBlock": 49152,
        "maxSharedMemoryPerBlockOptin": 232448,
        "reservedSharedMemoryPerBlock": 1024,
        "regsPerBlock": 65536,
        "maxRegistersPerSM": 65536,
        "warpSize": 32,
        "l2CacheSize": 62914560,
        "smClockRateKHz": 1980000,
        "memClockRateKHz": 3201000,
        "pciDeviceId": 0,
        "isTccDriver": 0,
        "supportCoopLaunch": 1,
    }
)
