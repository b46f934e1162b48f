"""The hostile calls themselves: `call_text(seed, number)` is one line of Python.

It starts from a random good call and replaces some of its arguments. What the line may name is in
`NAMESPACE`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mxdeconv
from mxdeconv.testing import Problem, random_problem

INTS = (-(2**63), -(2**62), -(2**31), -7, -1, 0, 1, 2, 3, 4, 7, 100, 2**16, 2**20, 2**31 - 1,
        2**31, 2**32, 2**40, 2**53, 2**62, 2**63 - 1)  # fmt: skip
TOO_LONG_INTS = (2**63, 2**64, 10**30, -(2**63) - 1)
SIZES = (0, 1, 2, 3, 5, 2**16 + 1, 2**31, 2**33 + 1, 2**40, 2**62)
DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "int64", "uint8", "bool",
          "complex64", "complex32", "float8_e4m3fn", "uint16")  # fmt: skip
VALUES = ("None", "True", "False", "''", "'('", "'None'", "'(4, 4)'", "'(4L,)'", "b'(4, 4)'",
          "'9' * 5000", "'(' * 100000", "'[' + '1,' * 100000 + ']'", "'x' * 10**7", "'\\0'",
          "'\\ud800'", "'\\uff11'", "float('nan')", "float('inf')", "1e400", "3j", "()", "[]",
          "{}", "{3, 4}", "{3: 4}", "[[3, 3]]", "nest(3, 50)", "(3,) * 10**6",
          "1.5", "range(2)", "iter([3, 3])", "object()", "int", "lambda: 3",
          "...", "np.int64(3)", "np.float32(3)", "np.array([3, 3])", "np.array(3)",
          "np.ones((2, 2))", "np.array(['a'])", "torch.tensor(3)", "torch.tensor([3, 3])",
          "torch.tensor(3.5)", "torch.Size([3, 3])", "torch.float32", "torch.ones(2, 2)",
          "torch.empty(1, device='meta')", "print")  # fmt: skip
# torch's own parser of raw calls follows these to the end, so they go to our faces only.
BOTTOMLESS = ("range(10**18)", "endless()", "nest(3, 100000)", "evil('len', tuple)",
              "evil('endless', tuple)", "evil('endless', list)")  # fmt: skip
EVIL = ("index", "huge_index", "text_index", "repr", "long_repr", "eq", "hash", "bool",
        "getattr")  # fmt: skip
OPS = ("deconvolution", "deconvolution_data", "deconvolution_weight", "deconvolution_into")


class Evil(Exception):
    """Raised by the arguments themselves."""


def _raise(*_: Any) -> Any:
    raise Evil("of the argument")


def _endless(*_: Any) -> Any:
    while True:
        yield 3


_METHODS: dict[str, dict[str, Callable[..., Any]]] = {
    "index": {"__index__": _raise, "__int__": _raise},
    "huge_index": {"__index__": lambda _: 10**100},
    "text_index": {"__index__": lambda _: "3"},
    "repr": {"__repr__": _raise, "__str__": _raise},
    "long_repr": {"__repr__": lambda _: "x" * 10**7},
    "eq": {"__eq__": _raise, "__hash__": lambda _: 0},
    "hash": {"__hash__": _raise},
    "len": {"__len__": lambda _: 2**62, "__getitem__": lambda *_: 3},
    "endless": {"__iter__": _endless, "__len__": lambda _: 2},
    "bool": {"__bool__": _raise},
    "getattr": {"__getattr__": _raise},
}


def evil(kind: str, base: type = object) -> Any:
    """An object, or an instance of a subclass of int, str or tuple, that misbehaves."""
    return type(f"Evil_{kind}", (base,), dict(_METHODS[kind]))()


def nest(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def emptied(tensor: Tensor) -> Tensor:
    """A tensor whose storage was taken away, as sharded training does between steps."""
    tensor.untyped_storage().resize_(0)
    return tensor


class Shouting(Tensor):
    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise Evil("of the tensor subclass")


class Entered:
    """Whether a call of ours is running: an error while torch builds the arguments is torch's."""

    now = False


def call(function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """function(...), and its backward pass where it has one."""
    Entered.now = True
    result = function(*args, **keywords)
    if isinstance(result, Tensor) and result.requires_grad:
        result.sum().backward()
    Entered.now = False
    return result


NAMESPACE: dict[str, Any] = {
    "torch": torch,
    "np": np,
    "mxdeconv": mxdeconv,
    "evil": evil,
    "nest": nest,
    "emptied": emptied,
    "Shouting": Shouting,
    "call": call,
    "endless": _endless,
}


# Tensors -------------------------------------------------------------------------------------


def good_tensor(rng: random.Random, shape: tuple[int, ...], dtype: str) -> str:
    make = rng.choice(("ones", "randn", "zeros"))
    return f"torch.{make}({shape}, dtype=torch.{dtype})"


def bad_shape(rng: random.Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = list(shape)
    for _ in range(rng.choice((1, 1, 2, 4))):
        change = rng.randrange(4)
        if change == 0 and sizes:
            sizes[rng.randrange(len(sizes))] = rng.choice(SIZES)
        elif change == 1:
            sizes.insert(rng.randrange(len(sizes) + 1), rng.choice((0, 1, 2, 3)))
        elif change == 2 and sizes:
            del sizes[rng.randrange(len(sizes))]
        elif sizes:
            sizes[rng.randrange(len(sizes))] = rng.choice((0, 1, 2, 3))
    return tuple(sizes)


def count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def bad_tensor(rng: random.Random, shape: tuple[int, ...], dtype: str) -> str:
    if rng.random() < 0.4:
        shape = bad_shape(rng, shape)
        if max(shape, default=0) > 2**16 or rng.random() < 0.2:
            where = rng.choice(("", "", ", device='meta'"))
            return f"torch.ones((1,) * {len(shape)}, dtype=torch.{dtype}{where}).expand({shape})"
        return good_tensor(rng, shape, dtype)
    if rng.random() < 0.25:
        return f"torch.ones({shape}, dtype=torch.{rng.choice(DTYPES)})"
    good = good_tensor(rng, shape, dtype)
    strides = tuple(rng.choice((0, 0, 1, 1, 2, 7)) for _ in shape)
    return rng.choice(
        (
            f"{good}.to_sparse()",
            f"{good}.flatten(1).to_sparse_csr()",
            f"{good}.to('meta')",
            f"{good}.float().to_mkldnn()",
            f"{good}.mul_(float('nan'))",
            f"{good}.div_(0)",
            f"torch.ones({7 * sum(shape) + 1}, dtype=torch.{dtype}).as_strided({shape}, {strides})",
            f"torch._neg_view({good})",
            f"torch.ones({shape}, dtype=torch.complex64).conj()",
            f"torch._efficientzerotensor({shape}, dtype=torch.{dtype})",
            f"{good}.requires_grad_()",
            f"torch.nn.Parameter({good})",
            f"{good}.as_subclass(Shouting)",
            f"emptied({good})",
            f"torch.nested.nested_tensor([{good}])",
            f"torch.quantize_per_tensor({good}.float(), 0.1, 0, torch.qint8)",
            f"torch.nn.parameter.UninitializedParameter(dtype=torch.{dtype})",
            f"{good}.numpy()" if dtype != "bfloat16" else good,
            rng.choice(VALUES),
            f"evil({rng.choice(EVIL)!r})",
        )
    )


# Other arguments -----------------------------------------------------------------------------


def bad_ints(rng: random.Random, good: tuple[int, ...], more: tuple[str, ...] = ()) -> str:
    values: list[int] = list(good)
    kind = rng.random()
    if kind < 0.6 and values:
        for _ in range(rng.choice((1, 1, 2, 3))):
            values[rng.randrange(len(values))] = rng.choice(INTS)
    elif kind < 0.8:
        values = [rng.choice((0, 1, 2, 3)) for _ in range(rng.randrange(7))]
    elif kind < 0.9 and values:
        values[0] = rng.choice(TOO_LONG_INTS)
    else:
        return rng.choice((*VALUES, *more, *(f"evil({kind!r}, tuple)" for kind in EVIL)))
    return repr(tuple(values))


def bad_value(rng: random.Random, more: tuple[str, ...] = ()) -> str:
    kind = rng.random()
    if kind < 0.4:
        return repr(rng.choice((*INTS, *TOO_LONG_INTS)))
    if kind < 0.6:
        base = rng.choice(("object", "int", "str", "tuple", "list"))
        return f"evil({rng.choice(EVIL)!r}, {base})"
    return rng.choice((*VALUES, *more))


def random_call(rng: random.Random) -> tuple[Problem, str]:
    problem = random_problem(rng, max_products=3000, max_values=1000, layouts=("first", "last"))
    return problem, rng.choice(("float32", "float64", "float16", "bfloat16"))


def times_bad(rng: random.Random) -> int:
    return rng.choice((0, 1, 1, 1, 2, 2, 3, 5))


# Calls ---------------------------------------------------------------------------------------


def raw_call(rng: random.Random) -> str:
    problem, dtype = random_call(rng)
    rank = problem.rank

    def first(shape: tuple[int, ...]) -> tuple[int, ...]:
        if not problem.is_channels_last:
            return shape
        return (shape[0], shape[-1], *shape[1:-1])

    shapes = {
        "data": first(problem.data_shape),
        "weight": first(problem.weight_shape),
        "bias": (problem.num_filter,),
        "out_grad": first(problem.out_shape),
        "out": first(problem.out_shape),
    }
    op = rng.choice(OPS)
    tensors = {
        "deconvolution": ("data", "weight", "bias"),
        "deconvolution_data": ("weight", "out_grad"),
        "deconvolution_weight": ("data", "out_grad"),
        "deconvolution_into": ("data", "weight", "bias"),
    }[op]
    if op == "deconvolution_into":
        tensors = (*tensors, "out")
    given = {name: good_tensor(rng, shapes[name], dtype) for name in tensors}
    if "bias" in given and rng.random() < 0.3:
        given["bias"] = "None"
    lists = {name: getattr(problem, name) for name in ("stride", "dilate", "pad", "adj")}
    given |= {name: repr(value) for name, value in lists.items()}
    given |= {"num_group": repr(problem.num_group), "workspace": rng.choice(("512", "0", "1"))}
    given |= {"cudnn_tune": "None", "cudnn_off": "False"}
    for _ in range(times_bad(rng)):
        name = rng.choice(list(given))
        if name in tensors:
            given[name] = bad_tensor(rng, shapes[name], dtype)
        elif name in lists:
            given[name] = bad_ints(rng, lists[name] if rank else ())
        elif name in ("num_group", "workspace") and rng.random() < 0.7:
            given[name] = repr(rng.choice(INTS))
        else:
            given[name] = bad_value(rng)
    for name in ("pad", "adj", "num_group"):  # torch's SymInt ends at -2^62, in an internal assert
        given[name] = given[name].replace(str(-(2**63)), str(-(2**62)))
    order = [name for name in given if name != "out"] + (["out"] if "out" in given else [])
    return f"call(torch.ops.mxdeconv.{op}, {', '.join(given[name] for name in order)})"


def attributes(rng: random.Random, problem: Problem) -> dict[str, str]:
    """MXNet's attributes as source text, some of them bad."""
    given = {name: repr(value) for name, value in problem.arguments.items()}
    if rng.random() < 0.3:
        given = {name: repr(text) for name, text in given.items() if name != "layout"} | {
            "layout": given["layout"]
        }
    for _ in range(times_bad(rng)):
        name = rng.choice((*given, "target_shape", "workspace", "no_bias", "cudnn_tune",
                           "cudnn_off", "name", "foo"))  # fmt: skip
        value = problem.arguments.get(name)
        is_list = isinstance(value, tuple) or name == "target_shape"
        size = value if isinstance(value, tuple) else problem.out_size
        given[name] = (
            bad_ints(rng, size, BOTTOMLESS)
            if is_list and rng.random() < 0.7
            else bad_value(rng, BOTTOMLESS)
        )
    return given


def keywords(given: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in given.items())


def function_call(rng: random.Random) -> str:
    problem, dtype = random_call(rng)
    given = attributes(rng, problem)
    shapes = {"data": problem.data_shape, "weight": problem.weight_shape}
    if rng.random() < 0.3:
        shapes["bias"] = (problem.num_filter,)
        given.setdefault("no_bias", "False")
    if rng.random() < 0.2:
        shapes["out"] = problem.out_shape
    for name, shape in shapes.items():
        bad = rng.random() < 0.2
        given[name] = (bad_tensor if bad else good_tensor)(rng, shape, dtype)
    return f"call(mxdeconv.deconvolution, {keywords(given)})"


def module_call(rng: random.Random) -> str:
    problem, dtype = random_call(rng)
    given = attributes(rng, problem) | {"dtype": f"torch.{dtype}"}
    channels = rng.choice((repr(problem.channels), "0", "0", bad_value(rng, BOTTOMLESS)))
    given["in_channels"] = channels
    if (
        given.get("num_filter", "").strip("-'").isdigit()
        and int(given["num_filter"].strip("'")) > 9999
    ):
        given["device"] = "'meta'"  # whoever asks for parameters that large gets them
    bad = rng.random() < 0.4
    data = (bad_tensor if bad else good_tensor)(rng, problem.data_shape, dtype)
    more = ""
    if rng.random() < 0.2:
        name = rng.choice(("target_shape", "output_size"))
        more = f", {name}={bad_ints(rng, problem.out_size, BOTTOMLESS)}"
    return f"call(call(mxdeconv.Deconvolution, {keywords(given)}), {data}{more})"


def explain_call(rng: random.Random) -> str:
    problem, dtype = random_call(rng)
    shape = problem.data_shape
    data = rng.choice((repr(shape), good_tensor(rng, shape, dtype), bad_ints(rng, shape),
                       bad_tensor(rng, shape, dtype)))  # fmt: skip
    return f"str(call(mxdeconv.explain, {data}, {keywords(attributes(rng, problem))}))"


def attrs_call(rng: random.Random) -> str:
    problem, _ = random_call(rng)
    items = ", ".join(f"{key!r}: {value}" for key, value in attributes(rng, problem).items())
    return f"call(mxdeconv.Deconvolution.from_attrs, {{{items}}}, device='meta')"


def gluon_call(rng: random.Random) -> str:
    problem, _ = random_call(rng)
    given = {
        "channels": repr(problem.num_filter),
        "kernel_size": repr(problem.kernel),
        "strides": repr(problem.stride),
        "padding": repr(problem.pad),
        "output_padding": repr(problem.adj),
        "dilation": repr(problem.dilate),
        "groups": repr(problem.num_group),
        "layout": repr(problem.layout),
        "activation": "None",
        "in_channels": "0",
    }
    for _ in range(times_bad(rng)):
        name = rng.choice((*given, "use_bias", "weight_initializer", "bias_initializer"))
        given[name] = bad_value(rng, BOTTOMLESS)
    channels = {"1": problem.channels, "0": 0}.get(given["in_channels"], 0)
    data = good_tensor(rng, problem.data_shape, "float32")
    if channels == 0 and rng.random() < 0.3:
        data = bad_tensor(rng, problem.data_shape, "float32")
    return f"call(call(mxdeconv.gluon.Conv{problem.rank}DTranspose, {keywords(given)}), {data})"


FACES: tuple[tuple[Callable[[random.Random], str], float], ...] = (
    (raw_call, 0.45),
    (function_call, 0.25),
    (module_call, 0.12),
    (explain_call, 0.06),
    (attrs_call, 0.06),
    (gluon_call, 0.06),
)


def call_text(seed: int, number: int) -> str:
    """The call of this number, as an expression over `NAMESPACE`; the same on every machine."""
    rng = random.Random(f"{seed} {number}")
    faces, weights = zip(*FACES, strict=True)
    return rng.choices(faces, weights)[0](rng)  # type: ignore[no-any-return]
