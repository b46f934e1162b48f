"""The cases of operators on arrays: shapes, arithmetic, reductions, indexing."""

from __future__ import annotations

from typing import Any

from operator_case import Inputs, add, data


def shapes() -> None:
    def exact(op: str, inputs: Inputs, *attrs: dict[str, Any], **options: Any) -> None:
        add(op, inputs, *attrs, exact=True, **options)

    exact("Flatten", data(2, 3, 4, 5))
    for shape in (
        (4, 0, 2),
        (6, 1, -1),
        (-1, 0),
        (3, -1, 8),
        (-2,),
        (2, -2),
        (-3, 4),
        (-3, -2),
        (0, -3),
        (-4, 1, 2, -2),
        (2, -4, -1, 3, -2),
        (-4, 2, -1, 3, 4),
        (24,),
    ):
        exact("Reshape", data(2, 3, 4), {"shape": shape})
    exact("Reshape", data(8, 3, 3, 3, 4, 4), {"shape": (-4, -1, 2, 0, 0, 0, -3)})
    exact(
        "Reshape",
        data(10, 5, 4),
        {"shape": (-1, 0), "reverse": True},
        {"shape": (-1, 0), "reverse": False},
    )
    exact(
        "Reshape",
        data(8, 3, 2, 4),
        {"shape": (0, -4, 2, -1, 0), "reverse": True},
        {"shape": (-3, 0, 0)},
        {"shape": (-3, 0), "reverse": True},
    )
    exact(
        "Reshape",
        data(2, 3, 4),
        {"target_shape": (0, 4)},
        {"target_shape": (7, 0), "keep_highest": True},
    )
    exact("transpose", data(2, 3, 4), {}, {"axes": (1, 0, 2)}, {"axes": (2, 0, 1)})
    exact("SwapAxis", data(2, 3, 4), {"dim1": 0, "dim2": 2})
    exact("expand_dims", data(2, 3), {"axis": 0}, {"axis": 1}, {"axis": -1})
    exact("squeeze", data(1, 3, 1, 2), {}, {"axis": 0}, {"axis": (0, 2)}, {"axis": -2})
    exact("squeeze", data(1, 1))
    exact("tile", data(2, 3), {"reps": (2,)}, {"reps": (2, 2)}, {"reps": (2, 1, 3)})
    exact("repeat", data(2, 3), {"repeats": 2}, {"repeats": 2, "axis": 1})
    exact("reverse", data(2, 3, 4), {"axis": 1}, {"axis": (0, 2)})
    two = {"a": ((2, 3, 4), "normal"), "b": ((2, 2, 4), "normal")}
    exact("Concat", two, {"num_args": 2})
    same = {"a": ((2, 3), "normal"), "b": ((2, 3), "normal")}
    exact("Concat", same, {"dim": 0, "num_args": 2}, {"dim": -1, "num_args": 2})
    exact("stack", same, {"num_args": 2}, {"axis": 1, "num_args": 2}, {"axis": -1, "num_args": 2})
    exact("add_n", same, {"num_args": 2})
    exact("SliceChannel", data(2, 6, 3), {"num_outputs": 3}, outputs=3)
    exact("SliceChannel", data(2, 3), {"num_outputs": 3, "squeeze_axis": True}, outputs=3)
    exact("SliceChannel", data(4, 3), {"num_outputs": 2, "axis": 0}, outputs=2)
    exact("SliceChannel", data(4, 3), {"num_outputs": 1, "axis": 0})
    exact("_split_v2", data(6, 3), {"indices": (0, 1, 4), "axis": 0}, outputs=3)
    exact("_split_v2", data(6, 3), {"indices": (), "sections": 3, "axis": 0}, outputs=3)
    exact(
        "slice",
        data(5, 6),
        {"begin": (1,), "end": (4,)},
        {"begin": (1, -4), "end": (-1, None)},
        {"begin": (None, 1), "end": (None, 6), "step": (2, 2)},
        {"begin": (4, None), "end": (0, None), "step": (-1, -2)},
    )
    exact(
        "slice_axis",
        data(5, 6),
        {"axis": 0, "begin": 1, "end": 3},
        {"axis": -1, "begin": -4, "end": -1},
        {"axis": 1, "begin": 2, "end": None},
    )
    like = {**data(5, 6, 4), "like": ((3, 2, 4), "normal")}
    exact("slice_like", like, {}, {"axes": (0,)}, {"axes": (-1, 1)})
    crop = {**data(1, 2, 7, 8), "like": ((1, 3, 4, 5), "normal")}
    exact(
        "Crop",
        crop,
        {"num_args": 2},
        {"num_args": 2, "offset": (2, 3)},
        {"num_args": 2, "center_crop": True},
        {"num_args": 2, "offset": (1, 1), "center_crop": True},
    )
    exact(
        "Crop",
        data(1, 2, 7, 8),
        {"num_args": 1, "h_w": (4, 5), "offset": (1, 2)},
        {"num_args": 1, "h_w": (4, 5), "center_crop": True},
    )
    widths = {"pad_width": (0, 0, 0, 0, 1, 2, 2, 1)}
    for mode in ("constant", "edge", "reflect"):
        exact("Pad", data(2, 2, 3, 4), {"mode": mode, **widths})
    deep = {"pad_width": (0, 0, 0, 0, 1, 1, 1, 0, 0, 1)}
    for mode in ("constant", "edge", "reflect"):
        exact("Pad", data(1, 2, 2, 3, 2), {"mode": mode, **deep})
    exact("Pad", data(2, 2, 3, 4), {"mode": "constant", "constant_value": 1.5, **widths})
    exact("broadcast_to", data(1, 3, 1), {"shape": (2, 0, 4)})
    exact("broadcast_axis", data(1, 3, 1), {"axis": (0, 2), "size": (2, 4)}, {"axis": 2, "size": 5})
    exact("broadcast_like", {**data(1, 3, 1), "like": ((2, 3, 4), "normal")})
    exact(
        "broadcast_like",
        {**data(2, 1, 3), "like": ((5, 7), "normal")},
        {"lhs_axes": (1,), "rhs_axes": (-1,)},
    )
    exact(
        "reshape_like",
        {**data(30, 12), "like": ((4, 2, 2, 3), "normal")},
        {"lhs_begin": -1, "lhs_end": "None", "rhs_begin": 1, "rhs_end": "None"},
    )
    exact("reshape_like", {**data(2, 6), "like": ((3, 4), "normal")})
    for op in ("zeros_like", "ones_like", "shape_array", "size_array"):
        exact(op, data(2, 3), train=False)
    exact(
        "_contrib_arange_like",
        data(2, 3),
        {},
        {"start": 2, "step": 0.5},
        {"axis": 1},
        {"axis": -1, "repeat": 1},
        train=False,
    )
    exact(
        "_arange",
        {},
        {"start": 5},
        {"start": 2, "stop": 7, "step": 2},
        {"start": 0, "stop": 3, "repeat": 2},
        {"start": 3, "stop": 0, "step": -1, "dtype": "int32"},
        {"start": 0, "stop": 1, "step": 0.25},
        {"start": 4, "stop": None, "infer_range": False, "ctx": "cpu(0)"},
        train=False,
    )
    exact("_zeros", {}, {"shape": (2, 3)}, {"shape": (2,), "dtype": "int32"}, train=False)
    exact("_ones", {}, {"shape": (2, 3)}, train=False)
    exact("_full", {}, {"shape": (2, 3), "value": 2.5}, train=False)
    exact("_eye", {}, {"N": 3}, {"N": 3, "M": 4, "k": 1}, {"N": 3, "M": 2, "k": -1}, train=False)
    exact("depth_to_space", data(2, 8, 2, 3), {"block_size": 2})
    exact("space_to_depth", data(2, 2, 4, 6), {"block_size": 2})
    exact("identity", data(2, 3))
    exact("BlockGrad", data(2, 3))
    for dtype in ("float64", "float16", "int32", "int64", "uint8", "int8", "bool"):
        kind = "halves" if dtype not in ("uint8", "bool") else "below 3"
        exact("Cast", data(2, 9, kind=kind), {"dtype": dtype}, train=False)
    exact("amp_cast", data(2, 3), {"dtype": "float32"}, train=False)


def arithmetic() -> None:
    pairs: Inputs = {"lhs": ((2, 3), "normal"), "rhs": ((2, 3), "positive")}
    ties: Inputs = {"lhs": ((3, 5), "integer"), "rhs": ((3, 5), "integer")}
    broad: Inputs = {"lhs": ((2, 1, 3), "normal"), "rhs": ((1, 4, 3), "positive")}
    for op in ("elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div"):
        add(op, pairs)
    for op in ("add", "sub", "mul", "div", "mod", "hypot"):
        add(f"broadcast_{op}", broad)
    power: Inputs = {"lhs": ((2, 1, 3), "positive"), "rhs": ((1, 4, 3), "normal")}
    add("broadcast_power", power)
    add("_power", {"lhs": ((2, 3), "positive"), "rhs": ((2, 3), "normal")})
    for op in ("maximum", "minimum"):
        add(f"broadcast_{op}", ties, exact=True)
        add(f"_{op}", ties, exact=True)
    add("broadcast_mod", ties, exact=True, train=False)  # by 0, too, where gradients are infinite
    add("_mod", ties, exact=True, train=False)
    add("_hypot", pairs)
    for dtype in ("int32", "int64"):
        whole: Inputs = {"lhs": ((2, 9), f"integer {dtype}"), "rhs": ((2, 9), f"below 4 {dtype}")}
        whole["rhs"] = ((2, 9), f"below 4 {dtype}")
        for op in ("add", "sub", "mul", "mod", "maximum", "equal", "lesser", "logical_and"):
            add(f"broadcast_{op}", whole, exact=True, train=False)
        shifted: Inputs = {"data": ((2, 9), f"integer {dtype}")}
        for op in (
            "plus",
            "minus",
            "rminus",
            "mul",
            "div",
            "mod",
            "maximum",
            "minimum",
            "equal",
            "greater",
            "lesser",
            "lesser_equal",
            "not_equal",
            "greater_equal",
        ):
            add(f"_{op}_scalar", shifted, {"scalar": 2}, {"scalar": 2.5}, exact=True, train=False)
    comparisons = ("equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal")
    for op in (*comparisons, "logical_and", "logical_or", "logical_xor"):
        add(f"broadcast_{op}", ties, exact=True, train=False)
        add(f"_{op}_scalar", data(3, 5, kind="integer"), {"scalar": 1}, exact=True, train=False)
    for op in comparisons:
        add(f"_{op}", ties, exact=True, train=False)
    for op in (
        "plus",
        "minus",
        "rminus",
        "mul",
        "div",
        "mod",
        "rmod",
        "hypot",
        "maximum",
        "minimum",
    ):
        add(f"_{op}_scalar", data(2, 7), {"scalar": "2.5"}, {"scalar": 3})
    add("_maximum_scalar", data(3, 5, kind="integer"), {"scalar": 1}, exact=True)
    add("_minimum_scalar", data(3, 5, kind="integer"), {"scalar": 1}, exact=True)
    add("_mod_scalar", data(3, 5, kind="integer"), {"scalar": -3}, {"scalar": 0}, exact=True)
    edges: Inputs = {"lhs": ((11, 1), "special"), "rhs": ((1, 11), "special")}
    add("broadcast_mod", edges, exact=True, train=False)
    scalars = [{"scalar": text} for text in ("0", "1.5", "-1.5", "inf", "-inf")]
    for op in ("_mod_scalar", "_rmod_scalar"):
        add(op, data(11, kind="special"), *scalars, exact=True, train=False)
    for op in ("maximum", "minimum", "equal", "lesser", "greater_equal"):
        add(f"broadcast_{op}", edges, exact=True, train=False)
    add("_mod_scalar", data(2, 9, kind="integer int32"), {"scalar": 0.5}, exact=True, train=False)
    add("_rdiv_scalar", data(2, 7, kind="positive"), {"scalar": 2.5})
    add("_power_scalar", data(2, 7, kind="positive"), {"scalar": 2.5}, {"scalar": -1})
    add("_power_scalar", data(2, 7), {"scalar": 2}, {"scalar": 3})
    add("_rpower_scalar", data(2, 7), {"scalar": 2.5})
    for op in ("abs", "sign", "ceil", "floor", "trunc", "fix", "round", "rint", "relu"):
        add(op, data(3, 8, kind="halves"), exact=True)
    for op in ("negative", "square", "exp", "expm1", "sin", "cos", "tan", "sinh", "cosh", "tanh"):
        add(op, data(2, 7))
    for op in ("sigmoid", "erf", "softsign", "arctan", "arcsinh", "degrees", "radians", "cbrt"):
        add(op, data(2, 7))
    for op in (
        "sqrt",
        "rsqrt",
        "rcbrt",
        "log",
        "log2",
        "log10",
        "log1p",
        "reciprocal",
        "gamma",
        "gammaln",
    ):
        add(op, data(2, 7, kind="positive"))
    for op in ("arcsin", "arccos", "arctanh", "erfinv"):
        add(op, data(2, 7, kind="unit"))
    add("arccosh", data(2, 7, kind="large"))
    add("gamma", data(2, 7, kind="unit"))
    add("logical_not", data(3, 5, kind="integer"), exact=True, train=False)
    add("clip", data(3, 8, kind="halves"), {"a_min": -1.5, "a_max": 2}, exact=True)
    add("smooth_l1", data(3, 8, kind="halves"), {"scalar": 1}, {"scalar": 3})
    add("smooth_l1", data(3, 8), {})
    add("hard_sigmoid", data(3, 8, kind="halves"), {}, {"alpha": 0.5, "beta": 0.25})
    chosen: Inputs = {
        "condition": ((2, 3), "below 2"),
        "x": ((2, 3), "normal"),
        "y": ((2, 3), "normal"),
    }
    add("where", chosen, exact=True, frozen=("condition",))
    add("where", {**chosen, "condition": ((2,), "below 2")}, exact=True, frozen=("condition",))


def reductions() -> None:
    axes = [
        {},
        {"axis": 1},
        {"axis": (0, 2)},
        {"axis": -1, "keepdims": True},
        {"axis": 1, "exclude": True},
        {"axis": ()},
        {"keepdims": True},
    ]
    for op in ("sum", "mean", "prod", "max", "min", "nansum", "nanprod"):
        exact = op in ("max", "min")
        add(op, data(2, 3, 4, kind="integer" if exact else "normal"), *axes, exact=exact)
    add("sum_axis", data(2, 3, 4), {"axis": 1})
    add(
        "norm",
        data(2, 3, 4),
        {},
        {"axis": 1},
        {"ord": 1, "axis": 1},
        {"axis": (0, 2)},
        {"axis": 2, "keepdims": True},
        {"ord": 1},
        {"ord": 1, "axis": (1, 2)},
        {"axis": 1, "out_dtype": "float32"},
    )
    for op in ("argmax", "argmin"):
        add(
            op,
            data(3, 5, kind="integer"),
            {"axis": 1},
            {"axis": 0, "keepdims": True},
            {},
            {"axis": -1},
            exact=True,
            train=False,
        )
    add("argmax_channel", data(3, 5, kind="integer"), exact=True, train=False)


def indexing() -> None:
    weight = {"weight": ((7, 4), "normal")}
    table = {"input_dim": 7, "output_dim": 4}
    for kind in ("below 7", "below 9", "below 7 int32"):
        inputs = {**data(2, 3, kind=kind), **weight}
        add("Embedding", inputs, table, exact=True, frozen=("data",))
    for kind in ("below 5", "below 9", "integer"):
        inputs = {"a": ((5, 4), "normal"), "indices": ((2, 3), kind)}
        add(
            "take",
            inputs,
            {},
            {"mode": "wrap"},
            {"axis": 1},
            {"axis": -1, "mode": "wrap"},
            frozen=("indices",),
        )
    inputs = {"a": ((5, 4), "normal"), "indices": ((2, 3), "below 4")}
    add("take", inputs, {"mode": "raise"}, {"mode": "raise", "axis": 1}, frozen=("indices",))
    for axis, size in ((1, (4,)), (0, (5,)), (-1, (4,))):
        size = (4,) if axis in (1, -1) else (5,)
        inputs = {**data(4, 5), "index": (size, "below 6")}
        add(
            "pick",
            inputs,
            {"axis": axis},
            {"axis": axis, "keepdims": True},
            {"axis": axis, "mode": "wrap"},
            exact=True,
            frozen=("index",),
        )
    for rows in (1, 2, 3):
        inputs = {**data(3, 4, 5), "indices": ((rows, 6), "below 3")}
        add("gather_nd", inputs, frozen=("indices",))
    add(
        "one_hot",
        {"indices": ((2, 3), "below 6")},
        {"depth": 5},
        {"depth": 4, "on_value": 2, "off_value": -1, "dtype": "int32"},
        exact=True,
        train=False,
    )
    for kind in ("value", "indices", "mask"):
        add(
            "topk",
            data(3, 7, kind="distinct"),
            {"k": 3, "ret_typ": kind},
            {"k": 2, "ret_typ": kind, "axis": 0, "is_ascend": True},
            exact=True,
            train=False,
        )
    add(
        "topk",
        data(3, 7, kind="distinct"),
        {"k": 3, "ret_typ": "both"},
        {"k": 4, "ret_typ": "both", "dtype": "int64"},
        {"k": 0, "ret_typ": "both"},
        exact=True,
        train=False,
        outputs=2,
    )
    add(
        "topk",
        data(3, 7, kind="distinct"),
        {"k": 3, "axis": None},
        {"k": 3, "axis": None, "ret_typ": "mask"},
        {"k": 3, "axis": None, "ret_typ": "value"},
        exact=True,
        train=False,
    )
    add("topk", data(3, 7, kind="distinct"), {"k": 3, "ret_typ": "value"}, exact=True)
    add(
        "sort",
        data(3, 7, kind="distinct"),
        {},
        {"axis": 0, "is_ascend": False},
        {"axis": None},
        exact=True,
    )
    add(
        "argsort",
        data(3, 7, kind="distinct"),
        {},
        {"axis": 0, "is_ascend": False},
        {"axis": None, "dtype": "int32"},
        exact=True,
        train=False,
    )
    add("_np_cumsum", data(3, 4), {}, {"axis": 1})
