"""One table of calls that must be refused, each with the exact text of its error.

Every row is a fault in an otherwise good 2-D call (kernel (3, 3), 2 channels, 3 filters, data
4x4). `faces` says where the fault can be expressed: "function" stands for
`mxdeconv.deconvolution` however it is run (real, fake and meta tensors, compiled), "module" for
`mxdeconv.Deconvolution`, "raw" for `torch.ops.mxdeconv.deconvolution`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

BASE: dict[str, Any] = {"kernel": (3, 3), "num_filter": 3}
FUNCTION, MODULE, RAW = "function", "module", "raw"
EVERYWHERE = (FUNCTION, MODULE, RAW)
PYTHON = (FUNCTION, MODULE)


@dataclass(frozen=True)
class BadCall:
    id: str
    text: str
    error: type[Exception] = ValueError
    attributes: dict[str, Any] = field(default_factory=dict)
    data: tuple[int, ...] = (1, 2, 4, 4)
    weight: tuple[int, ...] = (2, 3, 3, 3)
    bias: tuple[int, ...] | None = None
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype] = (torch.float32,) * 3
    faces: tuple[str, ...] = PYTHON

    @property
    def all_attributes(self) -> dict[str, Any]:
        given = {**BASE, **self.attributes}
        return {key: value for key, value in given.items() if value is not MISSING}

    def tensors(self, device: str = "cpu") -> list[torch.Tensor | None]:
        shapes = (self.data, self.weight, self.bias)
        return [
            None if shape is None else torch.zeros(shape, dtype=dtype, device=device)
            for shape, dtype in zip(shapes, self.dtypes, strict=True)
        ]


MISSING = object()
ALL_ARGUMENTS = (
    "data, weight, bias, kernel, stride, dilate, pad, adj, target_shape, num_filter, num_group, "
    "workspace, no_bias, cudnn_tune, cudnn_off, layout, out, name"
)
TUPLE = "must be a tuple of ints"
TEXT = "must be a tuple of ints, e.g. '(4, 4)' as text"
LAYOUT = "layout must be one of None, 'NCW', 'NCHW', 'NCDHW', 'NWC', 'NHWC', 'NDHWC'"
TUNE = "cudnn_tune must be one of None, 'off', 'limited_workspace', 'fastest'"
KERNEL_MISSING = "kernel must be given: the spatial size, e.g. (4, 4)"
FILTER_MISSING = "num_filter must be given: the number of output channels"
INT64_MAX = 2**63 - 1
FLOATS = "a dense tensor of dtype float32, float64, float16 or bfloat16"


def _attribute(
    name: str, value: Any, text: str, error: type[Exception] = ValueError, *faces: str
) -> BadCall:
    shown = repr(value)
    return BadCall(f"{name}={shown}", text, error, {name: value}, faces=faces or PYTHON)


def _kernel_forms() -> list[BadCall]:
    rows = [
        _attribute("kernel", value, f"kernel {TUPLE}, got {value!r}", TypeError)
        for value in ((3.0, 3.0), (3, None), (True, 3), ((3, 3),), ("3", "3"), 3.0, True, b"(3,3)")
    ]
    texts = (
        *("[3 3]", "3,3", "(3,3", "3,3)", "(3,,3)", "(3,3)junk", "", " ", "(", "()x", "[3,3)"),
        *("(3,3]", "(3.0,3.0)", "(1e1,3)", "(0x3,3)", "{3,3}", "((3,3))", "none", "3L", "+3", "-3"),
        *("(3,None)", "(3 3)", "(,)", "(3,L)", "(- 3,3)", "(3_0,3)", "(\uff13,3)"),
    )
    rows += [_attribute("kernel", text, f"kernel {TEXT}, got {text!r}") for text in texts]
    rows += [
        _attribute("kernel", MISSING, KERNEL_MISSING, TypeError),
        _attribute("kernel", None, KERNEL_MISSING, TypeError),
        _attribute("kernel", "None", KERNEL_MISSING, TypeError),
        _attribute("kernel", (), "kernel must have 1, 2 or 3 values, got ()"),
        _attribute("kernel", "()", "kernel must have 1, 2 or 3 values, got ()"),
        _attribute("kernel", (3,) * 4, "kernel must have 1, 2 or 3 values, got (3, 3, 3, 3)"),
        _attribute("kernel", (0, 3), "kernel must be at least 1 on every axis, got (0, 3)"),
        _attribute("kernel", (-3, 3), "kernel must be at least 1 on every axis, got (-3, 3)"),
        _attribute("kernel", (-1, 3), "kernel must be at least 1 on every axis, got (-1, 3)"),
        _attribute(
            *("kernel", (3, 2**63)),
            f"kernel must be at most {INT64_MAX} on every axis, got (3, {2**63})",
        ),
        _attribute(
            "kernel", 3, "data must have 3 dimensions (batch, channels, 1 spatial axis), "
            "got shape (1, 2, 4, 4)",
        ),
        BadCall(
            "kernel-zero-in-weight",
            "kernel must be at least 1 on every axis, got (0, 3)",
            attributes={"kernel": (0, 3)},
            weight=(2, 3, 0, 3),
            faces=EVERYWHERE,
        ),
        _attribute("kernel", "9" * 5000, f"kernel {TEXT}, got '{'9' * 196}..."),
    ]  # fmt: skip
    return rows


def _lengths_and_ranges() -> list[BadCall]:
    rows = []
    for name, least in (("stride", 1), ("dilate", 1), ("pad", 0), ("adj", 0)):
        length = f"{name} must have 2 values, one for each spatial axis"
        rows += [
            _attribute(name, 1, f"{length}, got (1,)"),
            _attribute(name, "1", f"{length}, got (1,)"),
            _attribute(name, (1,), f"{length}, got (1,)", ValueError, *EVERYWHERE),
            _attribute(name, (1, 1, 1), f"{length}, got (1, 1, 1)", ValueError, *EVERYWHERE),
            _attribute(name, None, f"{length}, got None"),
            _attribute(name, "None", f"{length}, got None"),
            _attribute(name, (1.0, 1.0), f"{name} {TUPLE}, got (1.0, 1.0)", TypeError),
            _attribute(name, "1,1", f"{name} {TEXT}, got '1,1'"),
            _attribute(
                *(name, (1, 2**63)),
                f"{name} must be at most {INT64_MAX} on every axis, got (1, {2**63})",
            ),
        ]
        for value in ((least - 1, 1), (1, least - 1), (-1, -1), (-2, 1), "(-1, 1)"):
            shown = (-1, 1) if isinstance(value, str) else value
            text = f"{name} must be at least {least} on every axis, got {shown}"
            faces = PYTHON if isinstance(value, str) else EVERYWHERE
            rows.append(_attribute(name, value, text, ValueError, *faces))
    two = {"stride": (2, 2)}
    smaller = "adj must be smaller than stride on every axis"
    rows += [
        _attribute(
            "adj", (1, 0), f"{smaller}, got adj (1, 0) with stride (1, 1)", ValueError, *EVERYWHERE
        ),
        BadCall(
            "adj-equals-stride-x",
            f"{smaller}, got adj (0, 2) with stride (2, 2)",
            attributes={**two, "adj": (0, 2)},
            faces=EVERYWHERE,
        ),
        BadCall(
            "adj-negative-one-input-row",
            "adj must be at least 0 on every axis, got (-1, 0)",
            attributes={"stride": (2, 1), "adj": (-1, 0)},
            data=(1, 2, 1, 4),
            faces=EVERYWHERE,
        ),
        BadCall(
            "adj-1d",
            f"{smaller}, got adj (1,) with stride (1,)",
            attributes={"kernel": (3,), "adj": (1,)},
            data=(1, 2, 4),
            weight=(2, 3, 3),
            faces=EVERYWHERE,
        ),
        BadCall(
            "stride-length-1d",
            "stride must have 1 value, one for each spatial axis, got (1, 1)",
            attributes={"kernel": (3,), "stride": (1, 1)},
            data=(1, 2, 4),
            weight=(2, 3, 3),
            faces=EVERYWHERE,
        ),
        BadCall(
            "adj-3d",
            f"{smaller}, got adj (1, 0, 0) with stride (1, 1, 1)",
            attributes={"kernel": (3, 3, 3), "adj": (1, 0, 0)},
            data=(1, 2, 4, 4, 4),
            weight=(2, 3, 3, 3, 3),
            faces=EVERYWHERE,
        ),
        BadCall(
            "stride-before-pad",
            "stride must have 2 values, one for each spatial axis, got (1,)",
            attributes={"stride": (1,), "pad": (1,)},
            faces=EVERYWHERE,
        ),
    ]
    return rows


def _scalars() -> list[BadCall]:
    rows = [
        _attribute("num_filter", MISSING, FILTER_MISSING, TypeError),
        _attribute("num_filter", None, FILTER_MISSING, TypeError),
        _attribute("num_filter", "None", FILTER_MISSING, TypeError),
    ]
    limits = {"num_filter": (1, "", 2**32 - 1), "num_group": (1, "", 2**32 - 1)}
    limits["workspace"] = (0, " (MB)", INT64_MAX)
    for name, (least, unit, most) in limits.items():
        rows += [
            _attribute(name, value, f"{name} must be an int, got {value!r}")
            for value in ("3L", "3abc", "3.0", "", "0x3", "1e1", "+ 3", "1_0", "\uff13", "(3,)")
        ]
        rows += [
            _attribute(name, value, f"{name} must be an int, got {value!r}", TypeError)
            for value in (3.0, 1.5, True, (3,), [3], {}, b"3")
        ]
        raw = EVERYWHERE if name == "workspace" else PYTHON
        rows += [
            _attribute(
                *(name, least - 1, f"{name} must be at least {least}{unit}, got {least - 1}"),
                *(ValueError, *(PYTHON if name == "num_filter" else EVERYWHERE)),
            ),
            _attribute(
                *(name, -7, f"{name} must be at least {least}{unit}, got -7", ValueError, *raw)
            ),
            _attribute(name, "-1", f"{name} must be at least {least}{unit}, got -1"),
            _attribute(name, most + 1, f"{name} must be at most {most}{unit}, got {most + 1}"),
            _attribute(name, 2**64, f"{name} must be at most {most}{unit}, got {2**64}"),
        ]
    for name in ("no_bias", "cudnn_off"):
        rows += [
            _attribute(name, value, f"{name} must be True or False, got {value!r}")
            for value in ("yes", "None", 2, -1, "T", "01", "x", "", " true", "True ")
        ]
        rows += [
            _attribute(name, value, f"{name} must be True or False, got {value!r}", TypeError)
            for value in (None, 1.0, (True,))
        ]
    for value in ("bad", "", "Off", "none"):
        faces = EVERYWHERE
        rows.append(_attribute("cudnn_tune", value, f"{TUNE}, got {value!r}", ValueError, *faces))
    for value in (0, True, ("off",)):
        rows.append(_attribute("cudnn_tune", value, f"{TUNE}, got {value!r}", TypeError))
    for value in ("CHWN", "nchw", "HWCN", "", "NCHWC", "NC", " NCHW"):
        rows.append(_attribute("layout", value, f"{LAYOUT}, got {value!r}"))
    for value in (0, True, ["NCHW"]):
        rows.append(_attribute("layout", value, f"{LAYOUT}, got {value!r}", TypeError))
    for value in ("NCW", "NWC", "NCDHW", "NDHWC"):
        fit = "layout must fit the 2 spatial axes of kernel (3, 3): one of 'NCHW', 'NHWC'"
        rows.append(_attribute("layout", value, f"{fit}, got '{value}'"))
    for value in ("NCHW", "NHWC", "NCDHW"):
        rows.append(
            BadCall(
                f"1d-layout={value}",
                "layout must fit the 1 spatial axis of kernel (3,): one of 'NCW', 'NWC', "
                f"got '{value}'",
                attributes={"kernel": (3,), "layout": value},
                data=(1, 2, 4),
                weight=(2, 3, 3),
            )
        )
    rows.append(
        BadCall(
            "3d-layout=NCHW",
            "layout must fit the 3 spatial axes of kernel (3, 3, 3): one of 'NCDHW', 'NDHWC', "
            "got 'NCHW'",
            attributes={"kernel": (3, 3, 3), "layout": "NCHW"},
            data=(1, 2, 4, 4, 4),
            weight=(2, 3, 3, 3, 3),
        )
    )
    for name in ("foo", "Stride", "dtype", "kernel_size", "ctx", "__lr_mult__", "attr"):
        text = f"unknown argument {name!r}; valid are "
        faces = (FUNCTION,) if name == "dtype" else PYTHON  # a module has a dtype
        rows.append(BadCall(f"unknown-{name}", text, TypeError, {name: 1}, faces=faces))
    rows.append(
        BadCall(
            "unknown-before-missing",
            "unknown argument 'foo'; valid are ",
            TypeError,
            {"foo": 1, "kernel": MISSING},
        )
    )
    return rows


def _groups() -> list[BadCall]:
    return [
        BadCall(
            "groups-do-not-divide-num_filter",
            "num_group must divide num_filter, 3, got 2",
            attributes={"num_group": 2},
        ),
        BadCall(
            "groups-do-not-divide-num_filter-floored-weight",
            "num_group must divide num_filter, 3, got 2",
            attributes={"num_group": 2},
            weight=(2, 1, 3, 3),
        ),
        BadCall(
            "groups-do-not-divide-channels",
            "num_group must divide the channels of data, 3, got 2",
            attributes={"num_filter": 4, "num_group": 2},
            data=(1, 3, 4, 4),
            weight=(3, 2, 3, 3),
            faces=(FUNCTION, RAW),  # the module divides in_channels, at construction
        ),
    ]


def _bias() -> list[BadCall]:
    wants = {"no_bias": False}
    refused = "bias must be None when no_bias is True (pass no_bias=False), "
    rows = [
        BadCall("bias-by-default", f"{refused}got a tensor of shape (3,)", bias=(3,)),
        BadCall(
            "bias-with-no_bias",
            f"{refused}got a tensor of shape (3,)",
            attributes={"no_bias": "True"},
            bias=(3,),
        ),
        BadCall(
            "bias-missing",
            "bias must be given when no_bias is False, got None",
            attributes=wants,
        ),
    ]
    for shape in ((4,), (1,), (3, 1), ()):
        rows.append(
            BadCall(
                f"bias-shape-{shape}",
                f"bias must have shape (3,), got {shape}",
                attributes=wants,
                bias=shape,
                faces=EVERYWHERE,
            )
        )
    return rows


def _shapes() -> list[BadCall]:
    rows = []
    plain = "data must have 3, 4 or 5 dimensions (batch, channels, spatial axes), got shape "
    for shape in ((), (2,), (2, 3), (1, 2, 4, 4, 4, 4)):
        rows.append(BadCall(f"data-{shape}", f"{plain}{shape}", data=shape, faces=EVERYWHERE))
    for shape in ((1, 2, 4), (2, 4, 4), (1, 2, 4, 4, 4)):
        rows.append(
            BadCall(
                f"data-{shape}",
                f"data must have 4 dimensions (batch, channels, 2 spatial axes), got shape {shape}",
                data=shape,
            )
        )
    rows += [
        BadCall(
            "data-4d-kernel-1d",
            "data must have 3 dimensions (batch, channels, 1 spatial axis), got shape (1, 2, 4, 4)",
            attributes={"kernel": (3,)},
            weight=(2, 3, 3),
        ),
        BadCall(
            "data-4d-kernel-3d",
            "data must have 5 dimensions (batch, channels, 3 spatial axes), got shape (1, 2, 4, 4)",
            attributes={"kernel": (3, 3, 3)},
            weight=(2, 3, 3, 3, 3),
        ),
        BadCall(
            "data-3d-nhwc",
            "data must have 4 dimensions (batch, 2 spatial axes, channels), got shape (1, 4, 2)",
            attributes={"layout": "NHWC"},
            data=(1, 4, 2),
            weight=(2, 3, 3, 3),
        ),
        BadCall(
            "zero-channels",
            "data must have at least 1 channel, got shape (1, 0, 4, 4)",
            data=(1, 0, 4, 4),
            weight=(0, 3, 3, 3),
            faces=EVERYWHERE,
        ),
        BadCall(
            "zero-channels-nhwc",
            "data must have at least 1 channel, got shape (1, 4, 4, 0)",
            attributes={"layout": "NHWC"},
            data=(1, 4, 4, 0),
            weight=(0, 3, 3, 3),
        ),
        BadCall(
            "zero-spatial",
            "data must have a spatial size of at least 1 on every axis, got shape (1, 2, 0, 4)",
            data=(1, 2, 0, 4),
            faces=EVERYWHERE,
        ),
        BadCall(
            "zero-spatial-nhwc",
            "data must have a spatial size of at least 1 on every axis, got shape (1, 4, 0, 2)",
            attributes={"layout": "NHWC"},
            data=(1, 4, 0, 2),
        ),
    ]
    for shape in ((3, 2, 3, 3), (4, 3, 3, 3)):
        rows.append(
            BadCall(
                f"weight-{shape}",
                f"weight must have shape (2, 3, 3, 3), got {shape}",
                weight=shape,
                faces=PYTHON if shape[1] != 3 else EVERYWHERE,
            )
        )
    for shape in ((2, 3, 3, 4), (2, 3, 9), (2, 4, 3, 3), (2, 3, 3, 3, 3), ()):
        rows.append(
            BadCall(
                f"weight-{shape}", f"weight must have shape (2, 3, 3, 3), got {shape}", weight=shape
            )
        )
    rows += [
        BadCall(
            "weight-ungrouped",
            "weight must have shape (2, 2, 3, 3), got (2, 4, 3, 3)",
            attributes={"num_filter": 4, "num_group": 2},
            weight=(2, 4, 3, 3),
        ),
        BadCall(
            "weight-channels-first-for-nhwc",
            "weight must have shape (2, 3, 3, 5), got (2, 5, 3, 3)",
            attributes={"num_filter": 5, "layout": "NHWC"},
            data=(1, 4, 4, 2),
            weight=(2, 5, 3, 3),
        ),
    ]
    return rows


def _dtypes() -> list[BadCall]:
    f32, f64 = torch.float32, torch.float64
    rows = []
    for dtype in (torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64):
        name = str(dtype).removeprefix("torch.")
        rows.append(
            BadCall(
                f"dtype-{name}",
                f"data must be {FLOATS}, got {name}",
                TypeError,
                dtypes=(dtype,) * 3,
                faces=(FUNCTION, RAW),  # a Parameter must be floating
            )
        )
    rows += [
        BadCall(
            "data-int8-weight-float32",
            f"data must be {FLOATS}, got int8",
            TypeError,
            dtypes=(torch.int8, f32, f32),
            faces=EVERYWHERE,
        ),
        BadCall(
            "weight-float64",
            "weight must have the dtype of data, float32, got float64",
            TypeError,
            dtypes=(f32, f64, f32),
            faces=EVERYWHERE,
        ),
        BadCall(
            "data-float64",
            "weight must have the dtype of data, float64, got float32",
            TypeError,
            dtypes=(f64, f32, f64),
            faces=EVERYWHERE,
        ),
        BadCall(
            "bias-float64",
            "bias must have the dtype of data, float32, got float64",
            TypeError,
            attributes={"no_bias": False},
            bias=(3,),
            dtypes=(f32, f32, f64),
            faces=EVERYWHERE,
        ),
    ]
    return rows


def _target_shapes() -> list[BadCall]:
    base = {"kernel": (4, 4), "stride": (2, 2)}
    weight = (2, 3, 4, 4)

    def row(name: str, target: Any, text: str, **more: Any) -> BadCall:
        attributes = {**base, "target_shape": target, **more}
        return BadCall(f"target-{name}", text, attributes=attributes, weight=weight)

    length = "target_shape must have 2 values, one for each spatial axis"
    zeros = "target_shape must be all zeros (not given) or at least 1 on every axis"
    overflow = {"kernel": (3, 3), "stride": (2**62, 1), "target_shape": (3, 3)}
    return [
        row(
            *("too-big", (11, 8)),
            "target_shape must be at most the unpadded output size (10, 10), got (11, 8)",
        ),
        row("too-few", (8,), f"{length}, got (8,)"),
        row("int", 8, f"{length}, got (8,)"),
        row("int-text", "8", f"{length}, got (8,)"),
        row("too-many", (8, 8, 8), f"{length}, got (8, 8, 8)", pad=(1, 1)),
        row("too-many-zeros", (0, 0, 0), f"{length}, got (0, 0, 0)"),
        row("too-many-text", "(8, 8, 8)", f"{length}, got (8, 8, 8)"),
        row("partly-zero", (0, 8), f"{zeros}, got (0, 8)"),
        row("partly-zero-last", (8, 0), f"{zeros}, got (8, 0)"),
        row("minus-one", (-1, 8), f"{zeros}, got (-1, 8)"),
        row("minus-two", (-2, 8), f"{zeros}, got (-2, 8)"),
        row(
            *("odd-with-stride-1", (6, 6)),
            "target_shape must leave an even crop where stride is 1, got (6, 6) for an unpadded "
            "output size (7, 7) with stride (1, 1)",
            stride=(1, 1),
        ),
        row(
            *("adj-of-wrong-length", (8, 8)),
            "adj must have 2 values, one for each spatial axis, got (1,)",
            adj=(1,),
        ),
        row(
            *("negative-pad", (8, 8)), "pad must be at least 0 on every axis, got (-1, 0)",
            pad=(-1, 0),
        ),
        BadCall(
            "target-overflow",
            f"output size must fit in 64 bits, got data of spatial size (4, 4) with kernel (3, 3), "
            f"stride ({2**62}, 1), dilate (1, 1)",
            attributes=overflow,
        ),
    ]  # fmt: skip


def _output_sizes() -> list[BadCall]:
    small = "pad must leave an output size of at least 0 on every axis, got an output size of"
    rows = [
        BadCall(
            "output-minus-one",
            f"{small} (-1, 4) from pad (1, 0)",
            attributes={"kernel": (1, 1), "pad": (1, 0)},
            data=(1, 2, 1, 4),
            weight=(2, 3, 1, 1),
            faces=EVERYWHERE,
        ),
        BadCall(
            "output-minus-two",
            f"{small} (-2, -2) from pad (4, 4)",
            attributes={"pad": (4, 4)},
            faces=EVERYWHERE,
        ),
    ]
    for name, value in (("stride", (2**62, 1)), ("dilate", (2**62, 1)), ("pad", (2**62, 0))):
        values = {"stride": (1, 1), "dilate": (1, 1), "pad": (0, 0), "adj": (0, 0), name: value}
        rows.append(
            BadCall(
                f"overflow-{name}",
                "output size must fit in 64 bits, got data of spatial size (4, 4) with kernel "
                f"(3, 3), stride {values['stride']}, dilate {values['dilate']}, "
                f"pad {values['pad']}, adj {values['adj']}",
                attributes={name: value},
                faces=EVERYWHERE,
            )
        )
    return rows


BAD_CALLS = [
    *_kernel_forms(),
    *_lengths_and_ranges(),
    *_scalars(),
    *_groups(),
    *_bias(),
    *_shapes(),
    *_dtypes(),
    *_target_shapes(),
    *_output_sizes(),
]
