"""load_params and save_params against files of real MXNet, and against broken and hostile ones.

tests/recorded/record_params.py made the files and, with MXNet 1.9.1, what must be read from them.
"""

from __future__ import annotations

import io
import pickle
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mxdeconv.porting import Params, ParamsError, load_params, save_params
from mxdeconv.porting.source import DTYPES

FOLDER = Path(__file__).parent / "recorded" / "params"
FILES = sorted(path.stem for path in FOLDER.glob("*.params"))
WRITTEN_BY_MXNET = [stem for stem in FILES if stem not in ("V0", "V1", "sparse")]
EXPECTED = dict(np.load(FOLDER / "expected.npz"))


def read(stem: str, mmap: bool | None = None) -> Params:
    return load_params(FOLDER / f"{stem}.params", mmap=mmap)


def load_bytes(tmp_path: Path, data: bytes, **options: object) -> Params:
    path = tmp_path / "file.params"
    path.write_bytes(data)
    return load_params(path, **options)  # type: ignore[arg-type]


# What MXNet wrote ---------------------------------------------------------------------------


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("stem", FILES)
def test_reads_what_mxnet_reads(stem: str, mmap: bool) -> None:
    params = read(stem, mmap)
    expected = {n.partition("/")[2]: a for n, a in EXPECTED.items() if n.startswith(f"{stem}/")}
    assert params.saved_names() == list(expected)
    for tensor, array in zip(params.values(), expected.values(), strict=True):
        if tensor.dtype == torch.bfloat16:  # recorded as float32: numpy has none
            tensor = tensor.float()
        assert torch.equal(tensor, torch.from_numpy(array))
        assert tensor.dtype == torch.from_numpy(array).dtype
        assert tensor.is_contiguous()


@pytest.mark.parametrize("stem", WRITTEN_BY_MXNET)
def test_writes_what_mxnet_wrote_byte_for_byte(stem: str, tmp_path: Path) -> None:
    save_params(tmp_path / "again.params", read(stem), np_shape=stem == "np_shape")
    assert (tmp_path / "again.params").read_bytes() == (FOLDER / f"{stem}.params").read_bytes()


def test_single_tensor_is_a_list_of_one(tmp_path: Path) -> None:
    save_params(tmp_path / "one.params", torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert (tmp_path / "one.params").read_bytes() == (FOLDER / "single.params").read_bytes()
    assert list(load_params(tmp_path / "one.params")) == ["0"]


def test_kinds_of_a_checkpoint() -> None:
    params = read("export")
    assert list(params.aux) == ["net_batchnorm0_running_mean", "net_batchnorm0_running_var"]
    assert list(params.arg) == [name for name in params if name not in params.aux]
    assert params.saved_names()[0] == "arg:net_conv0_weight"
    assert read("gluon_structural").aux == {}
    assert list(read("gluon_structural").arg)[:2] == ["0.weight", "0.bias"]


def test_every_dtype_of_the_format_there_and_back(tmp_path: Path) -> None:
    """Also the four that MXNet's own Python cannot make."""
    tensors = {str(dtype): torch.tensor([[0, 1, 1]]).to(dtype) for dtype in DTYPES.values()}
    save_params(tmp_path / "all.params", tensors)
    params = load_params(tmp_path / "all.params")
    assert list(params) == list(tensors)
    for name, tensor in tensors.items():
        assert params[name].dtype == tensor.dtype
        assert params[name].tolist() == tensor.tolist()


def test_npz(tmp_path: Path) -> None:
    arrays = {"0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3, np.int64)}
    turned = {**arrays, "fortran": np.asfortranarray(arrays["0.weight"])}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "named.npz", **turned)
        for mmap in (False, True):
            params = load_params(tmp_path / "named.npz", mmap=mmap)
            assert params.named
            assert list(params) == list(turned)
            for name, array in turned.items():
                assert torch.equal(params[name], torch.from_numpy(array))
    np.savez(tmp_path / "list.npz", *arrays.values())
    params = load_params(tmp_path / "list.npz")
    assert (params.named, list(params)) == (False, ["0", "1"])


def test_npz_of_sparse_arrays_and_bfloat16(tmp_path: Path) -> None:
    """As MXNet 2 stores them: a folder each, and a structured type."""
    values, shape = np.float32([[1, 2], [3, 4]]), np.int64([4, 2])
    csr = {"data": np.float32([5, 6]), "indices": np.int64([1, 0]), "indptr": np.int64([0, 1, 2])}
    members = {
        **{"rows/data": values, "rows/indices": np.int64([0, 2]), "rows/shape": shape},
        **{f"csr/{name}": array for name, array in csr.items()},
        **{"csr/shape": np.int64([2, 2]), "rows/format": values[0], "csr/format": values[0]},
        "half": np.uint16([0x3F80, 0x4000]).view([("bfloat16", "<u2")]),
    }
    np.savez(tmp_path / "sparse.npz", **members)
    params = load_params(tmp_path / "sparse.npz")
    assert params["rows"].tolist() == [[1, 2], [0, 0], [3, 4], [0, 0]]
    assert params["csr"].tolist() == [[0, 5], [6, 0]]
    assert params["half"].tolist() == [1, 2]
    assert params["half"].dtype == torch.bfloat16
    assert len(params) == 3


# Views, copies, memory ----------------------------------------------------------------------


@pytest.mark.parametrize("mmap", [False, True])
def test_nothing_is_copied_and_each_storage_is_its_own(mmap: bool, tmp_path: Path) -> None:
    save_params(tmp_path / "f.params", {"a": torch.ones(1000, 1000), "b": torch.zeros(3)})
    tracemalloc.start()
    params = load_params(tmp_path / "f.params", mmap=mmap)
    used = tracemalloc.get_traced_memory()[1]  # torch's own allocations are not traced: none here
    tracemalloc.stop()
    assert used < (0 if mmap else 4_000_000) + 100_000
    assert params["b"].untyped_storage().nbytes() == 12
    saved = io.BytesIO()
    torch.save(params["b"], saved)
    assert len(saved.getvalue()) < 5000


@pytest.mark.parametrize("mmap", [False, True])
def test_tensors_can_be_written_and_the_file_stays(mmap: bool, tmp_path: Path) -> None:
    save_params(tmp_path / "f.params", {"a": torch.ones(4)})
    before = (tmp_path / "f.params").read_bytes()
    params = load_params(tmp_path / "f.params", mmap=mmap)
    params["a"].mul_(2)
    assert (tmp_path / "f.params").read_bytes() == before
    save_params(tmp_path / "f.params", params)  # over the very file that is mapped
    assert params["a"].tolist() == [2, 2, 2, 2]
    assert load_params(tmp_path / "f.params")["a"].tolist() == [2, 2, 2, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["f.params"]


def test_unaligned_arrays_are_aligned_copies(tmp_path: Path) -> None:
    save_params(
        tmp_path / "f.params", {"byte": torch.tensor([7], dtype=torch.int8), "w": torch.ones(3)}
    )
    weight = load_params(tmp_path / "f.params")["w"]
    assert weight.tolist() == [1, 1, 1]
    assert weight.data_ptr() % 4 == 0


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    save_params(tmp_path / "f.params", [torch.ones(10)], progress=lambda *now: told.append(now))
    assert told == [(40, 40)]
    told.clear()
    load_params(tmp_path / "f.params", progress=lambda *now: told.append(now))
    assert told[0][0] == told[0][1] == (tmp_path / "f.params").stat().st_size


# What cannot be written ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "error", "text"),
    [
        ({"a": torch.tensor(1.0)}, ValueError, "np_shape=True"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, TypeError, "tensor 'a' must be of a type"),
        ({"a": torch.ones(2, device="meta")}, TypeError, "with data"),
        ({"a": torch.ones(2, 2).to_sparse()}, TypeError, "dense"),
        ({"a": 3}, TypeError, "must be a torch.Tensor, got int"),
        ({3: torch.ones(2)}, TypeError, "names must be strings"),
        ({"\ud800": torch.ones(2)}, ValueError, "surrogates"),
        ([torch.ones(2), None], TypeError, "tensor 1 must be"),
        (3, TypeError, "a mapping, a sequence or a tensor"),
    ],
)
def test_save_refuses(tensors: object, error: type, text: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=text):
        save_params(tmp_path / "f.params", tensors)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_save_takes_views_and_parameters(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    save_params(tmp_path / "f.params", {"w": weight, "t": weight.detach().t()})
    params = load_params(tmp_path / "f.params")
    assert torch.equal(params["t"], weight.detach().t())
    assert not params["w"].requires_grad


# Broken and hostile files -------------------------------------------------------------------


def head(count: int = 1) -> bytes:
    return struct.pack("<QQQ", 0x112, 0, count)


def v2(shape: tuple[int, ...], dtype: int = 0, data: bytes = b"", storage: int = 0) -> bytes:
    return (
        struct.pack("<Iii", 0xF993FAC9, storage, len(shape))
        + struct.pack(f"<{len(shape)}q", *shape)
        + struct.pack("<iii", 1, 0, dtype)
        + data
    )


def sparse_v2(
    kind: int, shape: tuple[int, ...], values: int, *indices: list[int], dtype: int = 6
) -> bytes:
    parts = [struct.pack("<Iiiq", 0xF993FAC9, kind, 1, values)]
    if kind == 1:  # rows of two
        parts = [struct.pack("<Iiiqq", 0xF993FAC9, kind, 2, values, 2)]
    parts.append(struct.pack(f"<i{len(shape)}q", len(shape), *shape))
    parts.append(struct.pack("<iii", 1, 0, 0))
    parts += [struct.pack("<iiq", dtype, 1, len(index)) for index in indices]
    parts.append(b"\0" * 4 * values * (2 if kind == 1 else 1))
    parts += [struct.pack(f"<{len(index)}q", *index) for index in indices]
    return b"".join(parts)


NO_NAMES = struct.pack("<Q", 0)
BROKEN = {
    "empty file": (b"", 0, "the head of the file takes 24 bytes, the file has 0"),
    "other magic": (b"\x13" + head()[1:], 0, "begins with 0x113"),
    "a text file": (b"import torch  # not arrays", 0, "begins with 0x"),
    "more arrays than bytes": (head(2**63), 16, "claims 9223372036854775808 arrays"),
    "wrong version": (head() + struct.pack("<I", 0xF993FACB) + b"\0" * 40, 24, "0xf993facb"),
    "negative dimension": (head() + v2((2, -1)), 36, "negative dimension: shape (2, -1)"),
    "overflowing product": (head() + v2((2**32, 2**32)), 64, "does not fit in 64 bits"),
    "overflow hidden by a zero": (head() + v2((0, 2**40, 2**40)), 72, "does not fit in 64 bits"),
    "larger than the file": (head() + v2((2**40,)), 56, "the file has 0 more"),
    "negative number of dimensions": (
        head() + struct.pack("<Iii", 0xF993FAC9, 0, -2) + b"\0" * 40,
        32,
        "has -2 dimensions",
    ),
    "65 dimensions": (head() + v2((1,) * 65), 32, "has 65 dimensions, valid are 0 to 64"),
    "unknown type": (head() + v2((1,), 13, b"\0" * 8), 52, "unknown type 13"),
    "unknown storage": (head() + v2((1,), 0, b"\0" * 8, storage=3), 28, "unknown storage 3"),
    "bool of 2": (head() + v2((1,), 7, b"\2") + NO_NAMES, 56, "other bytes than 0 and 1"),
    "names for half": (
        head(2) + v2((0,)) * 2 + struct.pack("<Q", 1),
        88,
        "claims 1 names for 2 arrays",
    ),
    "name longer than the file": (
        head() + v2((0,)) + struct.pack("<QQ", 1, 2**60),
        72,
        "name 0 takes 1152921504606846976 bytes",
    ),
    "name not UTF-8": (
        head() + v2((0,)) + struct.pack("<QQ", 1, 2) + b"a\xff",
        73,
        "name 0 is not UTF-8",
    ),
    "one name twice": (
        head(2) + v2((0,)) * 2 + struct.pack("<QQ", 2, 5) + b"arg:w" + struct.pack("<Q", 1) + b"w",
        118,
        "'arg:w' and 'w' mean the same parameter",
    ),
    "legacy number": (
        head(2) + v2(()) + struct.pack("<f", 1.0) + v2((1,), 0, b"\0" * 4) + NO_NAMES,
        52,
        "cannot read such a file itself",
    ),
    "row beyond the shape": (
        head() + sparse_v2(1, (3, 2), 2, [0, 3]),
        24,
        "row indices 0 to 3 for 3 rows",
    ),
    "negative row": (head() + sparse_v2(1, (3, 2), 2, [-1, 0]), 24, "row indices -1 to 0"),
    "rows that descend": (head() + sparse_v2(1, (3, 2), 2, [1, 0]), 24, "do not ascend"),
    "rows of floats": (head() + sparse_v2(1, (3, 2), 1, [1], dtype=1), 24, "indices of type"),
    "too few rows": (head() + sparse_v2(1, (3, 2), 2, [1]), 24, "for 1 rows of shape (2,)"),
    "sparse beyond the limit": (
        head() + sparse_v2(1, (2**40, 2), 1, [1]),
        24,
        "more than memory_limit=1073741824",
    ),
    "csr of three dimensions": (
        head() + sparse_v2(2, (2, 2, 2), 1, [0, 1, 1], [0]),
        24,
        "not two dimensions",
    ),
    "csr pointers beyond": (
        head() + sparse_v2(2, (2, 2), 1, [0, 1, 2], [0]),
        24,
        "do not ascend from 0 to 1",
    ),
    "csr pointers that jump": (
        head() + sparse_v2(2, (2, 2), 1, [0, 2**62, 1], [0]),
        24,
        "do not ascend from 0 to 1",
    ),
    "csr column beyond": (
        head() + sparse_v2(2, (2, 2), 1, [0, 1, 1], [2]),
        24,
        "column indices 2 to 2 for 2 columns",
    ),
    "csr columns twice": (
        head() + sparse_v2(2, (2, 2), 2, [0, 2, 2], [1, 1]),
        24,
        "do not ascend within a row",
    ),
    "zip of nothing": (b"PK\3\4" + b"\0" * 30, 0, "not a readable .npz"),
}


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_named_with_its_offset(case: str, mmap: bool, tmp_path: Path) -> None:
    data, offset, text = BROKEN[case]
    with pytest.raises(ParamsError) as caught:
        load_bytes(tmp_path, data, mmap=mmap)
    assert text in str(caught.value)
    assert caught.value.offset == offset
    assert str(caught.value).startswith(f"{tmp_path / 'file.params'}: at byte {offset}: ")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_arrays_without_data_are_named(tmp_path: Path) -> None:
    """Where MXNet saved an NDArray before it held anything; V3 says so with -1 dimensions."""
    names = b"".join(struct.pack("<Q", 1) + name for name in (b"a", b"b"))
    for nothing in (v2(())[:12], struct.pack("<Iii", 0xF993FACA, 0, -1)):
        data = head(2) + nothing + v2((1,), 0, b"\0\0\x80?") + struct.pack("<Q", 2) + names
        params = load_bytes(tmp_path, data)
        assert params.without_data == ("a",)
        assert {name: tensor.tolist() for name, tensor in params.items()} == {"b": [1.0]}


def test_bytes_behind_the_end_are_ignored(tmp_path: Path) -> None:
    assert load_bytes(tmp_path, (FOLDER / "single.params").read_bytes() + b"rest")["0"].shape == (
        2,
        2,
    )


def test_memory_limit_counts_all_sparse_arrays(tmp_path: Path) -> None:
    data = head(3) + sparse_v2(1, (100, 2), 1, [1]) * 3 + NO_NAMES
    assert len(load_bytes(tmp_path, data, memory_limit=2400)) == 3
    with pytest.raises(ParamsError, match="memory_limit=2399"):
        load_bytes(tmp_path, data, memory_limit=2399)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        load_params(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_params(tmp_path / "none.params")


def survives(tmp_path: Path, data: bytes) -> bool:
    """True if the bytes are read, False if they are refused; anything else is a defect."""
    offset = -1
    try:
        for tensor in load_bytes(tmp_path, data, memory_limit=2**20).values():
            tensor.clone()
    except ParamsError as error:
        offset = error.offset
    assert offset <= len(data)
    return offset < 0


@pytest.mark.parametrize("stem", [*FILES, "expected"])
def test_every_truncation_is_refused(stem: str, tmp_path: Path) -> None:
    suffix = "npz" if stem == "expected" else "params"
    data = (FOLDER / f"{stem}.{suffix}").read_bytes()
    lengths = range(len(data)) if suffix == "params" else range(0, len(data), 97)
    assert not any(survives(tmp_path, data[:length]) for length in lengths)


@pytest.mark.parametrize("stem", ["dense", "sparse", "export", "V0", "V1", "np_shape", "expected"])
def test_flipped_bytes_crash_nothing(stem: str, tmp_path: Path) -> None:
    """Where lengths and types lie, so most are refused; data bytes may change without notice."""
    suffix = "npz" if stem == "expected" else "params"
    data = (FOLDER / f"{stem}.{suffix}").read_bytes()
    draw = random.Random(stem)
    outcomes = set()
    for _ in range(1000):
        broken = bytearray(data)
        for _ in range(draw.choice([1, 1, 2, 8])):
            broken[draw.randrange(len(data))] = draw.choice(
                [0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)]
            )
        outcomes.add(survives(tmp_path, bytes(broken)))
    assert outcomes == {True, False}


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(0, 3),
    body=st.lists(
        st.one_of(
            st.sampled_from([0xF993FAC8, 0xF993FAC9, 0xF993FACA]).map(
                lambda n: struct.pack("<I", n)
            ),
            st.integers(-2, 3).map(lambda n: struct.pack("<i", n)),
            st.integers(-1, 4).map(lambda n: struct.pack("<q", n)),
            st.binary(max_size=9),
        ),
        max_size=30,
    ),
)
def test_arbitrary_bytes_crash_nothing(
    tmp_path_factory: pytest.TempPathFactory, count: int, body: list[bytes]
) -> None:
    survives(tmp_path_factory.getbasetemp(), head(count) + b"".join(body))


# .npz ---------------------------------------------------------------------------------------


def npz(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return bytearray(file.getvalue())


def npy(text: str, data: bytes = b"", version: int = 1) -> bytes:
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text.encode() + data


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (npy(GOOD, b"\0" * 7), "does not fill its"),
        (npy(GOOD, b"\0" * 9), "does not fill its"),
        (npy(GOOD.replace("(2,)", "(99999999999999999999,)"), b"\0" * 8), "unreadable shape"),
        (npy(GOOD.replace("(2,)", f"({'1,' * 65})"), b"\0" * 8), "unreadable shape"),
        (npy(GOOD.replace("(2,)", "(4294967296, 4294967296)"), b"\0" * 8), "fit in 64 bits"),
        (npy(GOOD.replace("(2,)", "(-2,)"), b"\0" * 8), "unreadable header"),
        (npy(GOOD.replace("<f4", "|O"), b"\0" * 8), "is of type '|O', valid"),
        (npy(GOOD.replace("<f4", ">f4"), b"\0" * 8), "is of type '>f4', valid"),
        (npy("__import__('os')", b"\0" * 8), "unreadable header"),
        (npy("(" * 9000, b"\0" * 8), "unreadable header"),
        (npy(GOOD, b"\0" * 8)[:20], "unreadable header"),
        (npy(GOOD, b"\0" * 8, version=4), "version 1 to 3"),
        (b"no array", "version 1 to 3"),
        (b"", "version 1 to 3"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_broken_npy_member_is_refused(
    member: bytes, text: str, method: int, tmp_path: Path
) -> None:
    with pytest.raises(ParamsError) as caught:
        load_bytes(tmp_path, npz(("a.npy", member), method=method))
    assert text in str(caught.value)
    assert "array 'a'" in str(caught.value)


def test_npz_refuses_what_is_not_arrays(tmp_path: Path) -> None:
    good = npy(GOOD, b"\0" * 8)
    assert load_bytes(tmp_path, npz(("a.npy", good)))["a"].tolist() == [0, 0]
    with pytest.raises(ParamsError, match=r"'a\.txt' is not an \.npy array"):
        load_bytes(tmp_path, npz(("a.txt", b"text")))
    with pytest.raises(ParamsError, match="compressed in way 14"):
        load_bytes(tmp_path, npz(("a.npy", good), method=zipfile.ZIP_LZMA))
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = npz(("a.npy", good), ("a.npy", good))
    with pytest.raises(ParamsError, match="two members"):
        load_bytes(tmp_path, twice)
    flipped = npz(("a.npy", good))
    flipped[flipped.index(GOOD.encode()) + len(GOOD)] ^= 1
    with pytest.raises(ParamsError, match="checksum"):
        load_bytes(tmp_path, flipped)


def test_zip_bomb_stays_within_the_limit(tmp_path: Path) -> None:
    text = GOOD.replace("(2,)", "(250000000,)")
    bomb = npz(("a.npy", npy(text, bytes(10**9))), method=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**6
    with pytest.raises(ParamsError, match="inflated, takes 10000000"):
        load_bytes(tmp_path, bomb, memory_limit=2**20)
    # The same, claiming to be small: both places that state the size say 100 bytes.
    true_size = struct.pack("<I", 10**9 + len(npy(text)))
    lying = bytes(bomb).replace(true_size, struct.pack("<I", 100))
    with pytest.raises(ParamsError, match="does not inflate"):
        load_bytes(tmp_path, lying, memory_limit=2**20)


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """The quotation bomb: many entries of the directory, one set of bytes."""
    data = npz(("a.npy", npy(GOOD, b"\0" * 8)), ("b.npy", npy(GOOD, b"\0" * 8)))
    entry = data.rindex(b"PK\1\2")
    data[entry + 42 : entry + 46] = struct.pack("<I", 0)
    with pytest.raises(ParamsError, match=r"overlaps|not a readable"):
        load_bytes(tmp_path, data)
