"""MXNet's Deconvolution arguments: which are valid and what they mean. Knows no torch.

Two steps. `parse` reads the attributes once, from Python values or from the strings of a
symbol.json, and returns plain ints and strings. The methods of `Attributes` then answer what
depends on the sizes of a call; they use + - * // % and comparisons only, so that symbolic
sizes (torch.SymInt) survive `torch.compile`.

Every error is one sentence: the argument, what is valid, what was given. TypeError for a value
of the wrong type, ValueError for everything else. Checks run in MXNet's order: form of every
attribute, missing ones, number of values, then ranges; after that what depends on sizes.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

INT64_MAX = 2**63 - 1
UINT32_MAX = 2**32 - 1  # MXNet's type of num_filter and num_group

LAYOUTS = ("NCW", "NCHW", "NCDHW", "NWC", "NHWC", "NDHWC")
CUDNN_TUNES = ("off", "limited_workspace", "fastest")

#: MXNet's names of the arguments of `mx.nd.Deconvolution`, in its order.
ARGUMENTS = (
    *("data", "weight", "bias", "kernel", "stride", "dilate", "pad", "adj", "target_shape"),
    *("num_filter", "num_group", "workspace", "no_bias", "cudnn_tune", "cudnn_off", "layout"),
    *("out", "name"),
)
#: Those of them that a symbol.json stores.
ATTRIBUTES = ARGUMENTS[3:16]


class Labels(NamedTuple):
    """What the caller calls the arguments; the Gluon-named layers have names of their own."""

    kernel: str = "kernel"
    stride: str = "stride"
    dilate: str = "dilate"
    pad: str = "pad"
    adj: str = "adj"
    num_filter: str = "num_filter"
    num_group: str = "num_group"


MXNET_LABELS = Labels()


class Attributes(NamedTuple):
    """The attributes of one Deconvolution, parsed and checked. One entry per spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilate: tuple[int, ...]
    pad: tuple[int, ...]
    adj: tuple[int, ...]
    target_shape: tuple[int, ...]  # empty: not given
    num_filter: int
    num_group: int
    workspace: int  # MB, 2**20 bytes
    no_bias: bool
    cudnn_tune: str | None
    cudnn_off: bool
    layout: str

    @property
    def channels_last(self) -> bool:
        return self.layout[-1] == "C"

    def weight_shape(self, channels: int) -> tuple[int, ...]:
        """(C, F/g, *kernel), or (C, *kernel, F/g) for the channels-last layouts."""
        per_group = self.num_filter // self.num_group
        if self.channels_last:
            return (channels, *self.kernel, per_group)
        return (channels, per_group, *self.kernel)

    def spatial_size(self, data_shape: Sequence[int]) -> Sequence[int]:
        return data_shape[1:-1] if self.channels_last else data_shape[2:]

    def channels(self, data_shape: Sequence[int]) -> int:
        return data_shape[-1] if self.channels_last else data_shape[1]

    def check_data_shape(self, shape: Sequence[int]) -> None:
        if len(shape) != len(self.kernel) + 2:
            self._refuse_rank(shape)
        if self.channels_last:  # of the permuted view the operator would misreport the shape
            if self.channels(shape) < 1:
                raise ValueError(f"data must have at least 1 channel, got shape {tuple(shape)}")
            if any(size < 1 for size in self.spatial_size(shape)):
                raise ValueError(
                    "data must have a spatial size of at least 1 on every axis, "
                    f"got shape {tuple(shape)}"
                )

    def check_weight_shape(self, shape: Sequence[int], channels: int) -> None:
        expected = self.weight_shape(channels)
        if tuple(shape) != expected:
            raise ValueError(f"weight must have shape {expected}, got {tuple(shape)}")

    def _refuse_rank(self, data_shape: Sequence[int]) -> NoReturn:
        if not 3 <= len(data_shape) <= 5:
            axes = "3, 4 or 5 dimensions (batch, channels, spatial axes)"
        else:
            count = len(self.kernel)
            spatial = "1 spatial axis" if count == 1 else f"{count} spatial axes"
            order = (spatial, "channels") if self.channels_last else ("channels", spatial)
            axes = f"{count + 2} dimensions (batch, {', '.join(order)})"
        raise ValueError(f"data must have {axes}, got shape {tuple(data_shape)}")

    def full_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Output size before anything is cropped, s*(n-1) + d*(k-1) + 1 on each axis."""
        return tuple(
            [
                s * (n - 1) + d * (k - 1) + 1
                for n, k, s, d in zip(size, self.kernel, self.stride, self.dilate, strict=True)
            ]
        )

    def crop(
        self, size: Sequence[int], target_shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(pad, adj) for data of spatial `size`: the given ones, or those that target_shape asks.

        An odd crop takes the extra row at the front: pad = (e + 1) // 2, adj = e % 2.
        """
        if not target_shape:
            return self.pad, self.adj
        full = self.full_size(size)
        # Only constants this large can overflow; the test stays off symbolic sizes otherwise.
        if max(*self.kernel, *self.stride, *self.dilate) >= 2**20 and max(full) > INT64_MAX:
            raise ValueError(
                f"output size must fit in 64 bits, got data of spatial size {tuple(size)} "
                f"with kernel {self.kernel}, stride {self.stride}, dilate {self.dilate}"
            )
        excess = tuple([f - t for f, t in zip(full, target_shape, strict=True)])
        if any(e < 0 for e in excess):
            raise ValueError(
                f"target_shape must be at most the unpadded output size {full}, got {target_shape}"
            )
        pad = tuple([(e + 1) // 2 for e in excess])
        adj = tuple([e % 2 for e in excess])
        if any(a >= s for a, s in zip(adj, self.stride, strict=True)):
            raise ValueError(
                f"target_shape must leave an even crop where stride is 1, got {target_shape} "
                f"for an unpadded output size {full} with stride {self.stride}"
            )
        return pad, adj

    def adj_for(self, data_shape: Sequence[int], output_size: tuple[int, ...]) -> tuple[int, ...]:
        """adj that yields `output_size` with the given pad: the rule of torch's conv_transpose.

        As there, output_size may be the whole shape of the output.
        """
        rank = len(self.kernel)
        if len(data_shape) != rank + 2:
            self._refuse_rank(data_shape)
        size = self.spatial_size(data_shape)
        if len(output_size) == rank + 2:
            output_size = tuple(self.spatial_size(output_size))
        if len(output_size) != rank:
            _wrong_length("output_size", output_size, rank)
        least = tuple([f - 2 * p for f, p in zip(self.full_size(size), self.pad, strict=True)])
        adj = tuple([o - n for o, n in zip(output_size, least, strict=True)])
        if any(a < 0 or a >= s for a, s in zip(adj, self.stride, strict=True)):
            most = tuple([n + s - 1 for n, s in zip(least, self.stride, strict=True)])
            raise ValueError(f"output_size must be between {least} and {most}, got {output_size}")
        return adj

    def output_shape(
        self, data_shape: Sequence[int], pad: tuple[int, ...], adj: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Shape of the output in the layout of data."""
        full = self.full_size(self.spatial_size(data_shape))
        size = [f - 2 * p + a for f, p, a in zip(full, pad, adj, strict=True)]
        if self.channels_last:
            return (data_shape[0], *size, self.num_filter)
        return (data_shape[0], self.num_filter, *size)


def parse(
    *,
    kernel: Any = None,
    stride: Any = (),
    dilate: Any = (),
    pad: Any = (),
    adj: Any = (),
    target_shape: Any = (),
    num_filter: Any = None,
    num_group: Any = 1,
    workspace: Any = 512,
    no_bias: Any = True,
    cudnn_tune: Any = None,
    cudnn_off: Any = False,
    layout: Any = None,
    labels: Labels = MXNET_LABELS,
) -> Attributes:
    """Read MXNet's attributes, given as Python values or as the strings of a symbol.json."""
    kernel = parse_tuple(labels.kernel, kernel)
    stride = parse_tuple(labels.stride, stride)
    dilate = parse_tuple(labels.dilate, dilate)
    pad = parse_tuple(labels.pad, pad)
    adj = parse_tuple(labels.adj, adj)
    target = parse_tuple("target_shape", target_shape)
    if num_filter is not None and num_filter != "None":
        num_filter = parse_int(labels.num_filter, num_filter, 1, UINT32_MAX)
    else:
        num_filter = None
    num_group = parse_int(labels.num_group, num_group, 1, UINT32_MAX)
    workspace = parse_int("workspace", workspace, 0, INT64_MAX, " (MB)")
    no_bias = parse_bool("no_bias", no_bias)
    cudnn_tune = parse_choice("cudnn_tune", cudnn_tune, CUDNN_TUNES)
    cudnn_off = parse_bool("cudnn_off", cudnn_off)
    layout = parse_choice("layout", layout, LAYOUTS)

    if kernel is None:
        raise TypeError(f"{labels.kernel} must be given: the spatial size, e.g. (4, 4)")
    if num_filter is None:
        raise TypeError(f"{labels.num_filter} must be given: the number of output channels")
    rank = len(kernel)
    if not 1 <= rank <= 3:
        raise ValueError(f"{labels.kernel} must have 1, 2 or 3 values, got {show(kernel)}")
    ones, zeros = (1,) * rank, (0,) * rank
    stride = _per_axis(labels.stride, stride, ones, rank)
    dilate = _per_axis(labels.dilate, dilate, ones, rank)
    pad = _per_axis(labels.pad, pad, zeros, rank)
    adj = _per_axis(labels.adj, adj, zeros, rank)
    if layout is None:
        layout = LAYOUTS[rank - 1]
    elif len(layout) != rank + 2:
        fitting = f"'{LAYOUTS[rank - 1]}', '{LAYOUTS[rank + 2]}'"
        raise ValueError(
            f"layout must fit the {rank} spatial {'axis' if rank == 1 else 'axes'} of "
            f"{labels.kernel} {kernel}: one of {fitting}, got '{layout}'"
        )
    target = check_target_shape(target, rank)
    if num_filter % num_group != 0:
        raise ValueError(
            f"{labels.num_group} must divide {labels.num_filter}, {num_filter}, got {num_group}"
        )
    _at_least(labels.kernel, kernel, 1)
    _at_least(labels.stride, stride, 1)
    _at_least(labels.dilate, dilate, 1)
    _at_least(labels.pad, pad, 0)
    _at_least(labels.adj, adj, 0)
    if not target and any(a >= s for a, s in zip(adj, stride, strict=True)):
        raise ValueError(
            f"{labels.adj} must be smaller than {labels.stride} on every axis, "
            f"got {labels.adj} {adj} with {labels.stride} {stride}"
        )
    return Attributes(
        *(kernel, stride, dilate, pad, adj, target, num_filter, num_group, workspace),
        *(no_bias, cudnn_tune, cudnn_off, layout),
    )


def check_target_shape(target: tuple[int, ...] | None, rank: int) -> tuple[int, ...]:
    """A parsed target_shape of `rank` values; () when it is None, empty or all zeros."""
    if not target:
        return ()
    if len(target) <= rank and not any(target):
        return ()
    if len(target) != rank:
        _wrong_length("target_shape", target, rank)
    if any(t < 1 for t in target):
        raise ValueError(
            f"target_shape must be all zeros (not given) or at least 1 on every axis, got {target}"
        )
    return target


def check_bias(attributes: Attributes, bias_shape: Sequence[int] | None) -> None:
    """MXNet counts the inputs: a bias exactly when no_bias is False."""
    if attributes.no_bias:
        if bias_shape is not None:
            raise ValueError(
                "bias must be None when no_bias is True (pass no_bias=False), "
                f"got a tensor of shape {tuple(bias_shape)}"
            )
    elif bias_shape is None:
        raise ValueError("bias must be given when no_bias is False, got None")


def refuse_unknown(unknown: Sequence[object], valid: Sequence[str]) -> None:
    """Nothing that was given is ever dropped: an unknown keyword is an error."""
    for name in unknown:
        raise TypeError(f"unknown argument {show(name)}; valid are {', '.join(valid)}")


# Texts and values ---------------------------------------------------------------------------


def show(value: object) -> str:
    """repr, cut where a hostile value would fill the screen."""
    try:
        text = repr(value)
    except Exception:  # a repr that fails must not hide the error that wanted to show the value
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 200 else f"{text[:197]}..."


def parse_tuple(argument: str, value: object) -> tuple[int, ...] | None:
    """MXNet's Shape(tuple): a tuple or list of ints, an int (a 1-tuple), None, or their text.

    No int is broadcast over axes. Text is what `str` makes of these values, with white space
    anywhere between the tokens, a trailing comma, and an `L` behind an int as Python 2 wrote it.
    """
    if isinstance(value, (tuple, list)):
        kind = type(value)
        as_tuple = kind.__iter__ is tuple.__iter__ and kind.__len__ is tuple.__len__
        if as_tuple or kind is list:
            entries = tuple(value)  # which Dynamo can trace in any torch
        else:  # the stored entries, whatever a subclass says of its length or makes of iteration
            walk = tuple.__iter__(value) if isinstance(value, tuple) else list.__iter__(value)
            entries = tuple(walk)
        for entry in entries:
            if type(entry) is not int:
                return tuple([_integer(argument, entry, value) for entry in entries])
        return entries
    if value is None:
        return None
    if isinstance(value, str):
        return _tuple_of_text(argument, value)
    return (_integer(argument, value, value),)


def parse_int(argument: str, value: Any, minimum: int, maximum: int, unit: str = "") -> int:
    """An int or the decimal text of one; bools, floats and an `L` are refused as in MXNet."""
    if isinstance(value, str):
        number = _decimal(value.strip(" \t\n\v\f\r"))
        if number is None:
            raise ValueError(f"{argument} must be an int, got {show(value)}")
    elif isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{argument} must be an int, got {show(value)}")
    else:
        number = int(value)
    if number < minimum:
        raise ValueError(f"{argument} must be at least {minimum}{unit}, got {show(number)}")
    if number > maximum:
        raise ValueError(f"{argument} must be at most {maximum}{unit}, got {show(number)}")
    return number


def parse_bool(argument: str, value: object) -> bool:
    """True, False, 1, 0 or their text in any case."""
    if value is True or value is False:
        return bool(value)
    try:
        text = str(value).lower()
    except Exception:  # refused below
        text = ""
    if text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    error = ValueError if isinstance(value, (str, int)) else TypeError
    raise error(f"{argument} must be True or False, got {show(value)}")


def parse_choice(argument: str, value: object, choices: tuple[str, ...]) -> str | None:
    """One of the names, or None."""
    if value is None:
        return None
    if isinstance(value, str):
        if value in choices:
            return value
        if value == "None":
            return None
    error = ValueError if isinstance(value, str) else TypeError
    names = ", ".join([f"'{choice}'" for choice in choices])
    raise error(f"{argument} must be one of None, {names}, got {show(value)}")


def _integer(argument: str, entry: Any, value: object) -> int:
    if isinstance(entry, numbers.Integral) and not isinstance(entry, bool):
        return int(entry)
    if hasattr(entry, "__sym_max__"):  # a torch.SymInt stays symbolic
        return entry  # type: ignore[no-any-return]
    raise TypeError(f"{argument} must be a tuple of ints, got {show(value)}")


def _tuple_of_text(argument: str, text: str) -> tuple[int, ...] | None:
    inner = text.strip(" \t\n\v\f\r")
    if inner == "None":
        return None
    if inner[:1] + inner[-1:] in ("()", "[]"):
        entries = [entry.strip(" \t\n\v\f\r") for entry in inner[1:-1].split(",")]
        if entries[-1] == "" and (len(entries) > 1 or inner[1:-1].strip(" \t\n\v\f\r") == ""):
            entries.pop()
        values = [
            _decimal(entry[:-1].rstrip(" \t\n\v\f\r") if entry[-1:] == "L" else entry)
            for entry in entries
        ]
    else:  # a bare number has neither sign nor suffix
        values = [_decimal(inner) if inner[:1] not in ("+", "-") else None]
    if None in values:
        raise ValueError(
            f"{argument} must be a tuple of ints, e.g. '(4, 4)' as text, got {show(text)}"
        )
    return tuple([value for value in values if value is not None])


def _decimal(text: str) -> int | None:
    """The int that ASCII decimal digits with an optional sign spell; None for anything else."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    # int() alone would take '1_0', other scripts' digits, and thousands of digits slowly.
    if not digits or len(digits) > 100 or not (digits.isascii() and digits.isdigit()):
        return None
    return -int(digits) if text[0] == "-" else int(digits)


def _per_axis(
    argument: str, value: tuple[int, ...] | None, default: tuple[int, ...], rank: int
) -> tuple[int, ...]:
    if value is None or (value and len(value) != rank):
        _wrong_length(argument, value, rank)
    return value or default


def _wrong_length(argument: str, value: object, rank: int) -> NoReturn:
    # None gets the same sentence: MXNet reads it as a tuple of unknown length.
    counted = f"{rank} value{'' if rank == 1 else 's'}"
    raise ValueError(
        f"{argument} must have {counted}, one for each spatial axis, got {show(value)}"
    )


def _at_least(argument: str, value: tuple[int, ...], minimum: int) -> None:
    for entry in value:
        if entry < minimum:
            raise ValueError(f"{argument} must be at least {minimum} on every axis, got {value}")
        if entry > INT64_MAX:
            raise ValueError(f"{argument} must be at most {INT64_MAX} on every axis, got {value}")
