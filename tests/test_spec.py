"""spec.py: the texts and values MXNet takes, and the sizes that follow from them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxdeconv import spec

INTS = st.integers(-(2**70), 2**70)
TUPLES = st.lists(INTS, max_size=5).map(tuple)
SPACE = st.text(" \t\n\v\f\r", max_size=3)


def test_needs_no_torch() -> None:
    """The file by itself, without its package, which imports torch."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, spec.__file__], check=True)


def outcome(parse: Any, *args: Any) -> tuple[Any, str]:
    """(value, "") or (None, text of the TypeError or ValueError)."""
    try:
        return parse(*args), ""
    except (TypeError, ValueError) as error:
        return None, str(error)


# Texts --------------------------------------------------------------------------------------


@given(TUPLES)
def test_str_of_a_tuple_reads_back(value: tuple[int, ...]) -> None:
    assert spec.parse_tuple("kernel", str(value)) == value
    assert spec.parse_tuple("kernel", str(list(value))) == value
    assert spec.parse_tuple("kernel", value) == value
    assert spec.parse_tuple("kernel", list(value)) == value


@pytest.mark.parametrize("base", [tuple, list])
def test_entries_are_those_that_are_stored(base: type) -> None:
    """Whatever a subclass says of its length or makes of iteration."""
    longer = type("Longer", (base,), {"__len__": lambda self: 10**18})
    other = type("Other", (base,), {"__iter__": lambda self: iter([9] * 9)})
    for kind in (longer, other):
        assert spec.parse_tuple("kernel", kind([2, 3])) == (2, 3)


@given(st.data(), TUPLES, st.booleans())
def test_spaces_signs_suffixes_and_a_trailing_comma(
    data: Any, value: tuple[int, ...], trailing: bool
) -> None:
    def spaced(text: str) -> str:
        return data.draw(SPACE) + text + data.draw(SPACE)

    entries = []
    for number in value:
        sign = data.draw(st.sampled_from(["", "+"])) if number >= 0 else ""
        suffix = data.draw(st.sampled_from(["", "L", " L"]))
        entries.append(spaced(f"{sign}{number}{suffix}"))
    inner = ",".join(entries) + ("," + data.draw(SPACE) if trailing and entries else "")
    first, last = data.draw(st.sampled_from(["()", "[]"]))
    assert spec.parse_tuple("kernel", spaced(first + inner + last)) == value


@given(st.text() | st.text("()[],0123456789L+- None\n"))
def test_any_text_is_a_tuple_or_one_error(text: str) -> None:
    value, error = outcome(spec.parse_tuple, "kernel", text)
    if error:
        assert error.startswith("kernel must be a tuple of ints, e.g. '(4, 4)' as text, got ")
    else:
        assert value is None or all(type(entry) is int for entry in value)


@given(st.text() | st.text("0123456789L+-x. \n"))
def test_any_text_is_an_int_or_one_error(text: str) -> None:
    value, error = outcome(spec.parse_int, "workspace", text, 0, spec.INT64_MAX)
    if error:
        assert error.startswith("workspace must be ")
    else:
        assert type(value) is int
        assert 0 <= value <= spec.INT64_MAX


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(spec.ATTRIBUTES),
)
def test_any_value_of_any_attribute_parses_or_raises_its_error(value: Any, name: str) -> None:
    parsed, error = outcome(lambda: spec.parse(**{"kernel": (3, 3), "num_filter": 4, name: value}))
    if error:
        assert " must " in error
        assert len(error) < 2000
    else:
        assert spec.parse(**parsed._asdict()) == parsed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("(3,3)", (3, 3)), ("[3,3]", (3, 3)), ("(3L, 3L)", (3, 3)), ("(3,3,)", (3, 3))],
        *[("( 3 , 3 )", (3, 3)), ("(03,3)", (3, 3)), ("(+3,3)", (3, 3)), ("(4,)", (4,))],
        *[("3", (3,)), (" 3 ", (3,)), ("03", (3,)), ("()", ()), ("( )", ()), ("[]", ())],
        *[("None", None), (" None ", None), ("(3\n,3)", (3, 3)), ("(3 L,3)", (3, 3))],
    ],
)
def test_texts_that_mxnet_takes(text: str, value: Any) -> None:
    assert spec.parse_tuple("kernel", text) == value


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_numpy_ints_are_ints(kind: Any) -> None:
    parsed = spec.parse(kernel=(kind(3), 3), num_filter=kind(4), num_group=kind(2))
    assert parsed.kernel == (3, 3)
    assert (parsed.num_filter, parsed.num_group) == (4, 2)
    assert all(type(entry) is int for entry in (*parsed.kernel, parsed.num_filter))
    assert spec.parse_tuple("kernel", kind(3)) == (3,)


def test_numpy_arrays_and_floats_are_not() -> None:
    for value in (np.array([3, 3]), np.float32(3), (np.float64(3.0), 3), (np.bool_(True), 3)):
        with pytest.raises(TypeError, match=r"^kernel must be a tuple of ints, got "):
            spec.parse(kernel=value, num_filter=4)


@pytest.mark.parametrize("value", [True, "True", "true", "TRUE", "tRue", "1", 1, np.bool_(True)])
def test_true(value: Any) -> None:
    assert spec.parse_bool("no_bias", value) is True


@pytest.mark.parametrize("value", [False, "False", "false", "0", 0, np.bool_(False)])
def test_false(value: Any) -> None:
    assert spec.parse_bool("no_bias", value) is False


def test_attributes_of_a_symbol_json() -> None:
    node = {
        "adj": "(0, 0)",
        "cudnn_off": "False",
        "cudnn_tune": "off",
        "kernel": "(4L, 4L)",
        "layout": "NCHW",
        "no_bias": "True",
        "num_filter": "21",
        "num_group": "21",
        "pad": "[1, 1]",
        "stride": "(2, 2)",
        "target_shape": "(0, 0)",
        "workspace": "256",
    }
    assert spec.parse(**node) == spec.Attributes(
        kernel=(4, 4),
        stride=(2, 2),
        dilate=(1, 1),
        pad=(1, 1),
        adj=(0, 0),
        target_shape=(),
        num_filter=21,
        num_group=21,
        workspace=256,
        no_bias=True,
        cudnn_tune="off",
        cudnn_off=False,
        layout="NCHW",
    )


def test_defaults_are_those_of_mxnet_1() -> None:
    for rank, layout in ((1, "NCW"), (2, "NCHW"), (3, "NCDHW")):
        assert spec.parse(kernel=(3,) * rank, num_filter=1) == spec.Attributes(
            kernel=(3,) * rank,
            stride=(1,) * rank,
            dilate=(1,) * rank,
            pad=(0,) * rank,
            adj=(0,) * rank,
            target_shape=(),
            num_filter=1,
            num_group=1,
            workspace=512,
            no_bias=True,
            cudnn_tune=None,
            cudnn_off=False,
            layout=layout,
        )


# Sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "None", (), "()", (0, 0), "(0, 0)", [0, 0], (0,), 0])
def test_target_shapes_that_are_not_given(value: Any) -> None:
    parsed = spec.parse(kernel=(4, 4), num_filter=1, pad=(1, 1), target_shape=value)
    assert parsed.target_shape == ()
    assert parsed.crop((5, 5), parsed.target_shape) == ((1, 1), (0, 0))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "target", "pad", "adj"),
    [
        (4, 4, 2, 8, 1, 0),  # the usual doubling
        (4, 4, 2, 10, 0, 0),  # equal to the unpadded size
        (4, 3, 2, 8, 1, 1),  # odd crop: one more in front
        (4, 4, 1, 5, 1, 0),
        (1, 3, 3, 1, 1, 0),  # where MXNet's oneDNN path crops elsewhere
        (7, 2, 5, 20, 6, 0),  # a crop of more than the kernel
        (3, 5, 4, 4, 5, 1),
    ],
)
def test_target_shape_becomes_pad_and_adj(
    size: int, kernel: int, stride: int, target: int, pad: int, adj: int
) -> None:
    parsed = spec.parse(
        kernel=(kernel,), stride=(stride,), num_filter=1, pad=(99,), adj=(101,),
        target_shape=(target,),
    )  # fmt: skip
    assert parsed.crop((size,), parsed.target_shape) == ((pad,), (adj,))
    assert parsed.output_shape((1, 1, size), (pad,), (adj,)) == (1, 1, target)


@given(
    size=st.integers(1, 50),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 6),
    dilate=st.integers(1, 4),
    data=st.data(),
)
def test_every_reachable_target_is_reached(
    size: int, kernel: int, stride: int, dilate: int, data: Any
) -> None:
    full = stride * (size - 1) + dilate * (kernel - 1) + 1
    target = data.draw(st.integers(1, full))
    parsed = spec.parse(
        kernel=(kernel,), stride=(stride,), dilate=(dilate,), num_filter=1, target_shape=(target,)
    )
    if stride == 1 and (full - target) % 2:
        with pytest.raises(ValueError, match=r"^target_shape must leave an even crop"):
            parsed.crop((size,), parsed.target_shape)
        return
    pad, adj = parsed.crop((size,), parsed.target_shape)
    assert parsed.output_shape((1, 1, size), pad, adj) == (1, 1, target)
    assert 0 <= adj[0] < stride
    assert pad[0] - adj[0] <= pad[0]  # the front loses at least as much as the end


@pytest.mark.parametrize(
    ("layout", "weight", "data", "out"),
    [
        ("NCW", (6, 2, 3), (5, 6, 7), (5, 4, 9)),
        ("NWC", (6, 3, 2), (5, 7, 6), (5, 9, 4)),
        ("NCHW", (6, 2, 3, 4), (5, 6, 7, 8), (5, 4, 9, 11)),
        ("NHWC", (6, 3, 4, 2), (5, 7, 8, 6), (5, 9, 11, 4)),
        ("NCDHW", (6, 2, 3, 4, 5), (5, 6, 7, 8, 9), (5, 4, 9, 11, 13)),
        ("NDHWC", (6, 3, 4, 5, 2), (5, 7, 8, 9, 6), (5, 9, 11, 13, 4)),
    ],
)
def test_shapes_by_layout(
    layout: str, weight: tuple[int, ...], data: tuple[int, ...], out: tuple[int, ...]
) -> None:
    rank = len(layout) - 2
    parsed = spec.parse(kernel=(3, 4, 5)[:rank], num_filter=4, num_group=2, layout=layout)
    assert parsed.weight_shape(6) == weight
    assert parsed.channels(data) == 6
    parsed.check_data_shape(data)
    parsed.check_weight_shape(weight, 6)
    assert parsed.output_shape(data, parsed.pad, parsed.adj) == out
