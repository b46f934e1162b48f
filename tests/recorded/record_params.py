"""Record files of arrays that MXNet 1.9.1 writes and reads, for tests that run without MXNet.

    mxnet-env/bin/python tests/recorded/record_params.py        # see record_mxnet.py for mxnet-env

writes, always the same, into tests/recorded/params:

    *.params      what MXNet wrote through each of its front ends; files of the older versions, made
                  here by hand and then read by MXNet
    expected.npz  what MXNet reads from them: "file/name", or "file/number" for a list
"""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
from pathlib import Path

import mxnet as mx
import numpy as np

FOLDER = Path(__file__).parent / "params"
BFLOAT16 = np.dtype([("bfloat16", np.uint16)])


def values(*shape: int, dtype: str = "float32") -> mx.nd.NDArray:
    count = int(np.prod(shape))
    return mx.nd.array((np.arange(count) % 120 + 1).reshape(shape), dtype=dtype)


def dense() -> dict[str, mx.nd.NDArray]:
    types = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")
    arrays = {f"a {dtype}": values(2, 3, dtype=dtype) for dtype in types}
    arrays["a bfloat16"] = values(2, 3).astype(BFLOAT16)
    arrays["no elements"] = mx.nd.array(np.zeros((0, 3), np.float32))
    arrays["Größe.重み"] = values(1, 2, 1, 2, 1)
    arrays["last, alphabetically first"] = values(5)
    return arrays


def sparse() -> dict[str, mx.nd.NDArray]:
    rows = mx.nd.sparse.row_sparse_array(
        (values(2, 3), mx.nd.array([1, 3], dtype="int64")), shape=(5, 3)
    )
    csr = mx.nd.sparse.csr_matrix(
        (
            np.array([1, 2, 3], np.float32),
            np.array([0, 2, 1], np.int64),
            np.array([0, 2, 2, 3], np.int64),
        ),
        shape=(3, 4),
    )
    return {
        "rows": rows,
        "csr": csr,
        "rows of zeros": mx.nd.sparse.zeros("row_sparse", (4, 2)),
        "csr of zeros": mx.nd.sparse.zeros("csr", (4, 2)),
        "rows float64": rows.astype("float64"),
    }


def front_ends() -> None:
    """A small network, saved in every way that Gluon and Module have."""
    net = mx.gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(mx.gluon.nn.Conv2DTranspose(2, 3, in_channels=1))
        net.add(mx.gluon.nn.BatchNorm(in_channels=2))
    net.initialize()
    for parameter in net.collect_params().values():
        parameter.set_data(values(*parameter.shape))
    net.hybridize()
    net(mx.nd.zeros((1, 1, 3, 3)))
    net.save_parameters(str(FOLDER / "gluon_structural.params"))
    net.collect_params().save(str(FOLDER / "gluon_full.params"))
    net.export(str(FOLDER / "export"))
    (FOLDER / "export-0000.params").rename(FOLDER / "export.params")
    (FOLDER / "export-symbol.json").unlink()
    arg = {"up_weight": values(1, 2, 3, 3)}
    aux = {"bn_moving_mean": values(2)}
    symbol = mx.sym.Variable("data")
    mx.model.save_checkpoint(str(FOLDER / "module"), 7, symbol, arg, aux)
    (FOLDER / "module-0007.params").rename(FOLDER / "module.params")
    (FOLDER / "module-symbol.json").unlink()


def by_hand(version: str) -> bytes:
    """Two named float32 arrays as MXNet 0.x (V0) and 0.11 (V1) wrote them."""
    data = struct.pack("<4f", 1, 2, 3, 4)
    device_and_type = struct.pack("<iii", 1, 0, 0)
    if version == "V0":
        heads = [struct.pack("<III", 2, 2, 2), struct.pack("<II", 1, 4)]
    else:
        heads = [struct.pack("<Iiqq", 0xF993FAC8, 2, 2, 2), struct.pack("<Iiq", 0xF993FAC8, 1, 4)]
    names = b"".join(struct.pack("<Q", len(name)) + name for name in (b"arg:w", b"aux:m"))
    arrays = b"".join(head + device_and_type + data for head in heads)
    return struct.pack("<QQQ", 0x112, 0, 2) + arrays + struct.pack("<Q", 2) + names


def as_numpy(array: mx.nd.NDArray) -> np.ndarray:
    if array.dtype == BFLOAT16:
        return array.astype("float32").asnumpy()
    return array.asnumpy()


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    mx.nd.save(str(FOLDER / "dense.params"), dense())
    mx.nd.save(str(FOLDER / "list.params"), [values(2, 2), values(3, dtype="uint8"), values(1, 3)])
    mx.nd.save(str(FOLDER / "single.params"), values(2, 2))
    mx.nd.save(str(FOLDER / "empty.params"), {})
    mx.nd.save(str(FOLDER / "sparse.params"), sparse())
    front_ends()
    for version in ("V0", "V1"):
        (FOLDER / f"{version}.params").write_bytes(by_hand(version))
    expected = {}
    for path in sorted(FOLDER.glob("*.params")):
        loaded = mx.nd.load(str(path))
        items = loaded.items() if isinstance(loaded, dict) else enumerate(loaded)
        expected.update({f"{path.stem}/{name}": as_numpy(array) for name, array in items})
    mx.npx.set_np()  # last: from here on MXNet reads and writes version 3 only
    arrays = {"number": mx.np.array(2.5), "none": mx.np.zeros((0, 2)), "w": mx.np.ones((2, 2))}
    mx.npx.save(str(FOLDER / "np_shape.params"), arrays)
    loaded = mx.npx.load(str(FOLDER / "np_shape.params"))
    expected.update({f"np_shape/{name}": array.asnumpy() for name, array in loaded.items()})
    with zipfile.ZipFile(FOLDER / "expected.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in expected.items():
            member = io.BytesIO()
            np.save(member, array)
            info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: the same bytes every time
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())


if __name__ == "__main__":
    main()
