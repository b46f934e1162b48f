"""One-node symbols whose results are recorded from MXNet: operators, attributes, inputs.

Needs NumPy only: MXNet's environment has no torch, the tests have no MXNet. A case is written down
as the node of a symbol.json, so that both sides read the very same text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: name -> (shape, kind of values), see `draw`
Inputs = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class Case:
    """One node. `exact`: no rounding, so that the results must be equal bit for bit.

    `aux` names the inputs that are auxiliary states, `frozen` those that have no gradient.
    """

    op: str
    attrs: dict[str, str]
    inputs: Inputs
    exact: bool = False
    aux: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    outputs: int = 1
    train: bool = True
    note: str = field(default="", compare=False)

    def __str__(self) -> str:
        attrs = ",".join(f"{key}={value}" for key, value in self.attrs.items())
        shapes = ";".join("x".join(map(str, shape)) for shape, _ in self.inputs.values())
        return f"{self.op}({attrs})[{shapes}]".replace(" ", "")

    def symbol(self) -> str:
        """The text of its symbol.json."""
        nodes: list[dict[str, Any]] = [
            {"op": "null", "name": name, "inputs": []} for name in self.inputs
        ]
        entries = [[number, 0, 0] for number in range(len(self.inputs))]
        nodes.append({"op": self.op, "name": "node", "attrs": self.attrs, "inputs": entries})
        heads = [[len(self.inputs), output, 0] for output in range(self.outputs)]
        graph = {
            "nodes": nodes,
            "arg_nodes": list(range(len(self.inputs))),
            "heads": heads,
            "attrs": {"mxnet_version": ["int", 10901]},
        }
        return json.dumps(graph)


def draw(case: Case) -> dict[str, np.ndarray]:
    """The inputs of a case, the same under every NumPy: RandomState's streams are frozen.

    Kinds: "normal"; "integer", small whole numbers, with ties; "distinct", no two equal;
    "positive"; "large", above 1; "unit", in (-1, 1); "halves", multiples of 1/2; "below n", whole numbers from 0;
    each may be followed by a dtype.
    """
    rng = np.random.RandomState(len(str(case)) * 7919 + sum(map(ord, str(case))))
    arrays = {}
    for name, (shape, kind) in case.inputs.items():
        words = kind.split()
        size = int(np.prod(shape))
        if words[0] == "normal":
            values = rng.standard_normal(size)
        elif words[0] == "integer":
            values = rng.randint(-4, 5, size)
        elif words[0] == "distinct":
            values = (rng.permutation(size) - size // 3) / 8
        elif words[0] == "positive":
            values = rng.uniform(0.25, 3.0, size)
        elif words[0] == "large":
            values = rng.uniform(1.25, 4.0, size)
        elif words[0] == "unit":
            values = rng.uniform(-0.9, 0.9, size)
        elif words[0] == "halves":
            values = rng.randint(-9, 10, size) / 2
        elif words[0] == "below":
            values = rng.randint(0, int(words.pop(1)), size)
        else:
            raise ValueError(kind)
        dtype = words[1] if len(words) > 1 else "float32"
        arrays[name] = np.asarray(values).reshape(shape).astype(dtype)
    return arrays


def draw_head_gradients(case: Case, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Gradients of the outputs: small whole numbers."""
    rng = np.random.RandomState(len(str(case)) + 1)
    return [rng.randint(-3, 4, shape).astype(np.float32) for shape in shapes]


# ---- layers ------------------------------------------------------------------------------------

_CASES: list[Case] = []


def _add(op: str, inputs: Inputs, *attrs: dict[str, Any], **options: Any) -> None:
    for each in attrs or ({},):
        texts = {key: str(value) for key, value in each.items()}
        _CASES.append(Case(op, texts, dict(inputs), **options))


def _data(*shape: int, kind: str = "normal") -> Inputs:
    return {"data": (shape, kind)}


def _layers() -> None:
    for rank, shape in ((1, (2, 4, 9)), (2, (2, 4, 7, 8)), (3, (1, 4, 4, 5, 6))):
        k, two = (3,) * rank, (2,) * rank
        for group, bias in ((1, True), (2, False), (4, True)):
            weight = (6 if group < 4 else 4, 4 // group, *k)
            inputs = {**_data(*shape), "weight": (weight, "normal")}
            attrs = {"kernel": k, "num_filter": weight[0], "num_group": group}
            if bias:
                inputs["bias"] = ((weight[0],), "normal")
            else:
                attrs["no_bias"] = True
            _add("Convolution", inputs, attrs, {**attrs, "stride": two, "pad": (1,) * rank})
            if rank < 3:
                _add("Convolution", inputs, {**attrs, "dilate": two, "pad": two})
    for rank, shape in ((1, (2, 4, 5)), (2, (2, 4, 3, 4)), (3, (1, 4, 2, 3, 2))):
        k, two, one = (4,) * rank, (2,) * rank, (1,) * rank
        for group in (1, 2):
            weight = (4, 6 // group, *k)
            inputs = {**_data(*shape), "weight": (weight, "normal")}
            attrs = {"kernel": k, "num_filter": 6, "num_group": group, "stride": two, "pad": one}
            _add("Deconvolution", inputs, attrs, {**attrs, "adj": one})
            biased = {**inputs, "bias": ((6,), "normal")}
            _add("Deconvolution", biased, {**attrs, "no_bias": "False"})
    weight = {"weight": ((4, 2, 4, 4), "normal")}
    attrs = {"kernel": (4, 4), "num_filter": 2, "stride": (2, 2), "pad": (1, 1)}
    _add("Deconvolution", {**_data(1, 4, 3, 4), **weight}, {**attrs, "target_shape": (6, 7)})
    for sample in (1, 2, 3, 4, 5):
        size = 2 * sample - sample % 2
        inputs = {**_data(1, 3, 3, 2), "weight": ((3, 1, size, size), "normal")}
        common = {"scale": sample, "sample_type": "bilinear", "num_filter": 3, "num_args": 2}
        _add("UpSampling", inputs, common)
        _add(
            "UpSampling",
            _data(1, 3, 3, 2),
            {"scale": sample, "sample_type": "nearest", "num_args": 1},
        )
    several = {"a": ((1, 2, 2, 3), "normal"), "b": ((1, 2, 4, 6), "normal")}
    common = {"scale": 4, "sample_type": "nearest", "num_args": 2}
    _add("UpSampling", several, common, {**common, "multi_input_mode": "sum"})
    for flatten, shape, features in (
        (True, (3, 2, 4), 8),
        (True, (3, 5), 5),
        (False, (3, 2, 4), 4),
    ):
        inputs = {**_data(*shape), "weight": ((6, features), "normal")}
        _add("FullyConnected", inputs, {"num_hidden": 6, "no_bias": True, "flatten": flatten})
        inputs["bias"] = ((6,), "normal")
        _add("FullyConnected", inputs, {"num_hidden": 6, "flatten": flatten})
    a, b = {"lhs": ((3, 4), "normal")}, {"rhs": ((4, 5), "normal")}
    _add("dot", {**a, **b})
    _add("dot", {"lhs": ((4, 3), "normal"), **b}, {"transpose_a": True})
    _add("dot", {**a, "rhs": ((5, 4), "normal")}, {"transpose_b": True})
    _add("dot", {"lhs": ((2, 3, 4), "normal"), "rhs": ((4, 5), "normal")})
    _add("dot", {"lhs": ((4, 3, 2), "normal"), "rhs": ((4, 5), "normal")}, {"transpose_a": True})
    _add("dot", {"lhs": ((4,), "normal"), "rhs": ((4,), "normal")})
    _add("batch_dot", {"lhs": ((2, 3, 4), "normal"), "rhs": ((2, 4, 5), "normal")})
    both = {"transpose_a": True, "transpose_b": True}
    matrices = {"lhs": ((2, 3, 4), "normal"), "rhs": ((2, 4, 5), "normal")}
    _add("_linalg_gemm2", matrices, {}, {"alpha": 2.5})
    _add(
        "_linalg_gemm2",
        {"lhs": ((3, 2, 4), "normal"), "rhs": ((4, 2, 5), "normal")},
        {"axis": 0},
    )
    _add("batch_dot", {"lhs": ((2, 4, 3), "normal"), "rhs": ((2, 5, 4), "normal")}, both)


def _normalizations() -> None:
    vector = {
        "gamma": ((3,), "normal"),
        "beta": ((3,), "normal"),
        "mean": ((3,), "normal"),
        "var": ((3,), "positive"),
    }
    fixed = {"fix_gamma": False}
    for shape in ((4, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)):
        _add("BatchNorm", {**_data(*shape), **vector}, {}, fixed, aux=("mean", "var"))
    _add(
        "BatchNorm",
        {**_data(2, 3, 4, 5), **vector},
        {"use_global_stats": True, **fixed},
        {"use_global_stats": True},
        {"eps": 1e-5, "momentum": 0.6, **fixed},
        {"eps": "1e-05", "momentum": 0, "cudnn_off": True, **fixed},
        aux=("mean", "var"),
    )
    _add(
        "BatchNorm",
        {**_data(2, 4, 5, 3), **vector},
        {"axis": 3},
        {"axis": -1, **fixed},
        aux=("mean", "var"),
    )
    _add("BatchNorm", {**_data(1, 3, 1, 1), **vector}, fixed, aux=("mean", "var"))
    _add(
        "BatchNorm",
        {**_data(2, 3, 4, 5), **vector},
        {"output_mean_var": True, **fixed},
        aux=("mean", "var"),
        outputs=3,
    )
    affine = {"gamma": ((3,), "normal"), "beta": ((3,), "normal")}
    for shape in ((2, 3, 5), (2, 3, 4, 5)):
        _add("InstanceNorm", {**_data(*shape), **affine}, {}, {"eps": 1e-5})
    _add("LayerNorm", {**_data(2, 4, 3), **affine}, {}, {"eps": 1e-3})
    _add("LayerNorm", {**_data(2, 3, 4), **affine}, {"axis": 1})
    _add("LayerNorm", {**_data(2, 4, 3), **affine}, {"output_mean_var": True}, outputs=3)
    groups = {"gamma": ((2,), "normal"), "beta": ((2,), "normal")}
    _add("GroupNorm", {**_data(2, 6, 3, 4), **groups}, {"num_groups": 2})
    modes = [{"mode": mode} for mode in ("instance", "channel", "spatial")]
    _add("L2Normalization", _data(2, 3, 4, 5), {}, *modes, {"eps": 1e-2})
    _add("L2Normalization", _data(2, 5))
    _add(
        "LRN", _data(2, 7, 3, 4), {"nsize": 3}, {"nsize": 5, "alpha": 0.1, "beta": 0.5, "knorm": 1}
    )


SELU = "MXNet's gradient of selu is wrong: lambda * (alpha + out), not lambda * alpha + out"


INSTANCE = "MXNet's gradient is not that of its forward pass for data of more than two axes"


def _activations() -> None:
    for kind in ("relu", "sigmoid", "tanh", "softrelu", "softsign"):
        _add("Activation", _data(2, 3, 5), {"act_type": kind})
    _add("LeakyReLU", _data(2, 3, 5), {"act_type": "selu"}, train=False, note=SELU)
    for kind in ("leaky", "elu", "gelu"):
        _add("LeakyReLU", _data(2, 3, 5), {"act_type": kind}, {"act_type": kind, "slope": 0.1})
    _add("LeakyReLU", _data(2, 3, 5), {"act_type": "rrelu"}, train=False)
    bounds = {"act_type": "rrelu", "lower_bound": 0.2, "upper_bound": 0.6}
    _add("LeakyReLU", _data(2, 3, 5), bounds, train=False)
    for shape, channels in (((2, 3, 5), 3), ((2, 3, 4, 2), 3), ((4, 3), 3), ((2, 3, 5), 1)):
        inputs = {**_data(*shape), "gamma": ((channels,), "unit")}
        _add("LeakyReLU", inputs, {"act_type": "prelu"})
    for op in ("softmax", "log_softmax", "softmin"):
        _add(op, _data(2, 3, 5), {}, {"axis": 1}, {"axis": 0, "temperature": 2.5})
        _add(op, _data(2, 3, 5), {"dtype": "float64"}, train=False)
    lengths = {**_data(2, 4, 3), "length": ((2, 3), "below 5 int32")}
    _add("softmax", lengths, {"axis": 1, "use_length": True}, frozen=("length",))
    modes = {"mode": "instance"}, {"mode": "channel"}
    _add("SoftmaxActivation", _data(2, 3), {}, *modes)
    _add("SoftmaxActivation", _data(2, 3, 4), modes[1])
    _add("SoftmaxActivation", _data(2, 3, 4), {}, modes[0], train=False, note=INSTANCE)
    _add("Dropout", _data(3, 4), {"p": 0.5}, {"p": 0.25, "axes": (1,)}, train=False, exact=True)
    _add("Dropout", _data(3, 4), {"p": 0.0, "mode": "always"}, exact=True)


def _poolings() -> None:
    for kind in ("max", "avg", "sum", "lp"):
        base: dict[str, Any] = {"pool_type": kind}
        if kind == "lp":
            base["p_value"] = 2
        exact = kind == "max"
        for rank, shape in ((1, (2, 2, 9)), (2, (1, 2, 7, 8)), (3, (1, 2, 4, 5, 6))):
            k3, two, one = (3,) * rank, (2,) * rank, (1,) * rank
            attrs = [
                {"kernel": k3},
                {"kernel": k3, "stride": two},
                {"kernel": k3, "stride": two, "pad": one},
            ]
            for convention in ("valid", "full"):
                full = {} if convention == "valid" else {"pooling_convention": "full"}
                _add(
                    "Pooling",
                    _data(*shape, kind="distinct"),
                    *({**base, **a, **full} for a in attrs),
                    exact=exact,
                )
            kernel = {"kernel": k3, "global_pool": True}
            _add("Pooling", _data(*shape, kind="distinct"), {**base, **kernel}, exact=exact)
    for n in range(3, 9):  # every remainder of MXNet's rounding, stride beyond the kernel
        for k, s, p in ((2, 3, 0), (2, 3, 1), (1, 3, 0), (3, 2, 1), (2, 2, 1), (2, 4, 1)):
            attrs = {
                "kernel": (k, k),
                "stride": (s, s),
                "pad": (p, p),
                "pooling_convention": "full",
            }
            data = _data(1, 1, n, n, kind="distinct")
            _add("Pooling", data, attrs, exact=True)
            _add(
                "Pooling",
                data,
                {**attrs, "pool_type": "avg"},
                {**attrs, "pool_type": "avg", "count_include_pad": False},
            )
    for p in ((1, 1), (2, 1)):
        attrs = {"kernel": (4, 3), "stride": (2, 1), "pad": p, "pool_type": "avg"}
        _add("Pooling", _data(1, 2, 7, 6), attrs, {**attrs, "count_include_pad": False})
    _add("Pooling", _data(1, 2, 5, 6), {"pool_type": "lp", "p_value": 1, "kernel": (2, 2)})
    _add(
        "Pooling",
        _data(1, 2, 5, 6),
        {"pool_type": "avg", "global_pool": True},
        {"pool_type": "max", "global_pool": "1", "kernel": "(2L, 2L)", "pad": (1, 1)},
    )
    _add("Pooling", _data(1, 2, 5, 6), {"pool_type": "lp", "p_value": 3, "kernel": (2, 2)})
    sizes = {"output_size": 3}, {"output_size": (2, 3)}
    _add("_contrib_AdaptiveAvgPooling2D", _data(1, 2, 5, 7), {}, *sizes)
    size = {"height": 7, "width": 4}
    resized = size, {**size, "align_corners": False}, {"scale_height": 2, "scale_width": 1.5}
    _add("_contrib_BilinearResize2D", _data(1, 2, 5, 6), *resized)
    like = {**_data(1, 2, 5, 6), "like": ((1, 3, 8, 9), "normal")}
    _add("_contrib_BilinearResize2D", like, {"mode": "like"})
    _add("_contrib_div_sqrt_dim", _data(2, 3, 5))
    for stride in (1, 2, 3):  # MXNet reads three values of pad
        attrs = {
            "kernel": (2,),
            "stride": (stride,),
            "pooling_convention": "same",
            "pad": (0, 0, 0),
        }
        _add("Pooling", _data(1, 2, 7, kind="distinct"), attrs, exact=True)


# ---- everything else -----------------------------------------------------------------------------


def _shapes() -> None:
    def exact(op: str, inputs: Inputs, *attrs: dict[str, Any], **options: Any) -> None:
        _add(op, inputs, *attrs, exact=True, **options)

    exact("Flatten", _data(2, 3, 4, 5))
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
        exact("Reshape", _data(2, 3, 4), {"shape": shape})
    exact("Reshape", _data(8, 3, 3, 3, 4, 4), {"shape": (-4, -1, 2, 0, 0, 0, -3)})
    exact(
        "Reshape",
        _data(10, 5, 4),
        {"shape": (-1, 0), "reverse": True},
        {"shape": (-1, 0), "reverse": False},
    )
    exact(
        "Reshape",
        _data(8, 3, 2, 4),
        {"shape": (0, -4, 2, -1, 0), "reverse": True},
        {"shape": (-3, 0, 0)},
        {"shape": (-3, 0), "reverse": True},
    )
    exact(
        "Reshape",
        _data(2, 3, 4),
        {"target_shape": (0, 4)},
        {"target_shape": (7, 0), "keep_highest": True},
    )
    exact("transpose", _data(2, 3, 4), {}, {"axes": (1, 0, 2)}, {"axes": (2, 0, 1)})
    exact("SwapAxis", _data(2, 3, 4), {"dim1": 0, "dim2": 2})
    exact("expand_dims", _data(2, 3), {"axis": 0}, {"axis": 1}, {"axis": -1})
    exact("squeeze", _data(1, 3, 1, 2), {}, {"axis": 0}, {"axis": (0, 2)}, {"axis": -2})
    exact("squeeze", _data(1, 1))
    exact("tile", _data(2, 3), {"reps": (2,)}, {"reps": (2, 2)}, {"reps": (2, 1, 3)})
    exact("repeat", _data(2, 3), {"repeats": 2}, {"repeats": 2, "axis": 1})
    exact("reverse", _data(2, 3, 4), {"axis": 1}, {"axis": (0, 2)})
    two = {"a": ((2, 3, 4), "normal"), "b": ((2, 2, 4), "normal")}
    exact("Concat", two, {"num_args": 2})
    same = {"a": ((2, 3), "normal"), "b": ((2, 3), "normal")}
    exact("Concat", same, {"dim": 0, "num_args": 2}, {"dim": -1, "num_args": 2})
    exact("stack", same, {"num_args": 2}, {"axis": 1, "num_args": 2}, {"axis": -1, "num_args": 2})
    exact("add_n", same, {"num_args": 2})
    exact("SliceChannel", _data(2, 6, 3), {"num_outputs": 3}, outputs=3)
    exact("SliceChannel", _data(2, 3), {"num_outputs": 3, "squeeze_axis": True}, outputs=3)
    exact("SliceChannel", _data(4, 3), {"num_outputs": 2, "axis": 0}, outputs=2)
    exact("SliceChannel", _data(4, 3), {"num_outputs": 1, "axis": 0})
    exact("_split_v2", _data(6, 3), {"indices": (0, 1, 4), "axis": 0}, outputs=3)
    exact("_split_v2", _data(6, 3), {"indices": (), "sections": 3, "axis": 0}, outputs=3)
    exact(
        "slice",
        _data(5, 6),
        {"begin": (1,), "end": (4,)},
        {"begin": (1, -4), "end": (-1, None)},
        {"begin": (None, 1), "end": (None, 6), "step": (2, 2)},
        {"begin": (4, None), "end": (0, None), "step": (-1, -2)},
    )
    exact(
        "slice_axis",
        _data(5, 6),
        {"axis": 0, "begin": 1, "end": 3},
        {"axis": -1, "begin": -4, "end": -1},
        {"axis": 1, "begin": 2, "end": None},
    )
    like = {**_data(5, 6, 4), "like": ((3, 2, 4), "normal")}
    exact("slice_like", like, {}, {"axes": (0,)}, {"axes": (-1, 1)})
    crop = {**_data(1, 2, 7, 8), "like": ((1, 3, 4, 5), "normal")}
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
        _data(1, 2, 7, 8),
        {"num_args": 1, "h_w": (4, 5), "offset": (1, 2)},
        {"num_args": 1, "h_w": (4, 5), "center_crop": True},
    )
    widths = {"pad_width": (0, 0, 0, 0, 1, 2, 2, 1)}
    for mode in ("constant", "edge", "reflect"):
        exact("Pad", _data(2, 2, 3, 4), {"mode": mode, **widths})
    deep = {"pad_width": (0, 0, 0, 0, 1, 1, 1, 0, 0, 1)}
    for mode in ("constant", "edge", "reflect"):
        exact("Pad", _data(1, 2, 2, 3, 2), {"mode": mode, **deep})
    exact("Pad", _data(2, 2, 3, 4), {"mode": "constant", "constant_value": 1.5, **widths})
    exact("broadcast_to", _data(1, 3, 1), {"shape": (2, 0, 4)})
    exact(
        "broadcast_axis", _data(1, 3, 1), {"axis": (0, 2), "size": (2, 4)}, {"axis": 2, "size": 5}
    )
    exact("broadcast_like", {**_data(1, 3, 1), "like": ((2, 3, 4), "normal")})
    exact(
        "broadcast_like",
        {**_data(2, 1, 3), "like": ((5, 7), "normal")},
        {"lhs_axes": (1,), "rhs_axes": (-1,)},
    )
    exact(
        "reshape_like",
        {**_data(30, 12), "like": ((4, 2, 2, 3), "normal")},
        {"lhs_begin": -1, "lhs_end": "None", "rhs_begin": 1, "rhs_end": "None"},
    )
    exact("reshape_like", {**_data(2, 6), "like": ((3, 4), "normal")})
    for op in ("zeros_like", "ones_like", "shape_array", "size_array"):
        exact(op, _data(2, 3), train=False)
    exact(
        "_contrib_arange_like",
        _data(2, 3),
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
    exact("depth_to_space", _data(2, 8, 2, 3), {"block_size": 2})
    exact("space_to_depth", _data(2, 2, 4, 6), {"block_size": 2})
    exact("identity", _data(2, 3))
    exact("BlockGrad", _data(2, 3))
    for dtype in ("float64", "float16", "int32", "int64", "uint8", "int8", "bool"):
        kind = "halves" if dtype not in ("uint8", "bool") else "below 3"
        exact("Cast", _data(2, 9, kind=kind), {"dtype": dtype}, train=False)
    exact("amp_cast", _data(2, 3), {"dtype": "float32"}, train=False)


def _arithmetic() -> None:
    pairs: Inputs = {"lhs": ((2, 3), "normal"), "rhs": ((2, 3), "positive")}
    ties: Inputs = {"lhs": ((3, 5), "integer"), "rhs": ((3, 5), "integer")}
    broad: Inputs = {"lhs": ((2, 1, 3), "normal"), "rhs": ((1, 4, 3), "positive")}
    for op in ("elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div"):
        _add(op, pairs)
    for op in ("add", "sub", "mul", "div", "mod", "hypot"):
        _add(f"broadcast_{op}", broad)
    power: Inputs = {"lhs": ((2, 1, 3), "positive"), "rhs": ((1, 4, 3), "normal")}
    _add("broadcast_power", power)
    _add("_power", {"lhs": ((2, 3), "positive"), "rhs": ((2, 3), "normal")})
    for op in ("maximum", "minimum"):
        _add(f"broadcast_{op}", ties, exact=True)
        _add(f"_{op}", ties, exact=True)
    _add("broadcast_mod", ties, exact=True, train=False)  # by 0, too, where gradients are infinite
    _add("_mod", ties, exact=True, train=False)
    _add("_hypot", pairs)
    for dtype in ("int32", "int64"):
        whole: Inputs = {"lhs": ((2, 9), f"integer {dtype}"), "rhs": ((2, 9), f"below 4 {dtype}")}
        whole["rhs"] = ((2, 9), f"below 4 {dtype}")
        for op in ("add", "sub", "mul", "mod", "maximum", "equal", "lesser", "logical_and"):
            _add(f"broadcast_{op}", whole, exact=True, train=False)
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
            _add(f"_{op}_scalar", shifted, {"scalar": 2}, {"scalar": 2.5}, exact=True, train=False)
    comparisons = ("equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal")
    for op in (*comparisons, "logical_and", "logical_or", "logical_xor"):
        _add(f"broadcast_{op}", ties, exact=True, train=False)
        _add(f"_{op}_scalar", _data(3, 5, kind="integer"), {"scalar": 1}, exact=True, train=False)
    for op in comparisons:
        _add(f"_{op}", ties, exact=True, train=False)
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
        _add(f"_{op}_scalar", _data(2, 7), {"scalar": "2.5"}, {"scalar": 3})
    _add("_maximum_scalar", _data(3, 5, kind="integer"), {"scalar": 1}, exact=True)
    _add("_minimum_scalar", _data(3, 5, kind="integer"), {"scalar": 1}, exact=True)
    _add("_mod_scalar", _data(3, 5, kind="integer"), {"scalar": -3}, {"scalar": 0}, exact=True)
    _add("_rdiv_scalar", _data(2, 7, kind="positive"), {"scalar": 2.5})
    _add("_power_scalar", _data(2, 7, kind="positive"), {"scalar": 2.5}, {"scalar": -1})
    _add("_power_scalar", _data(2, 7), {"scalar": 2}, {"scalar": 3})
    _add("_rpower_scalar", _data(2, 7), {"scalar": 2.5})
    for op in ("abs", "sign", "ceil", "floor", "trunc", "fix", "round", "rint", "relu"):
        _add(op, _data(3, 8, kind="halves"), exact=True)
    for op in ("negative", "square", "exp", "expm1", "sin", "cos", "tan", "sinh", "cosh", "tanh"):
        _add(op, _data(2, 7))
    for op in ("sigmoid", "erf", "softsign", "arctan", "arcsinh", "degrees", "radians", "cbrt"):
        _add(op, _data(2, 7))
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
        _add(op, _data(2, 7, kind="positive"))
    for op in ("arcsin", "arccos", "arctanh", "erfinv"):
        _add(op, _data(2, 7, kind="unit"))
    _add("arccosh", _data(2, 7, kind="large"))
    _add("gamma", _data(2, 7, kind="unit"))
    _add("logical_not", _data(3, 5, kind="integer"), exact=True, train=False)
    _add("clip", _data(3, 8, kind="halves"), {"a_min": -1.5, "a_max": 2}, exact=True)
    _add("smooth_l1", _data(3, 8, kind="halves"), {"scalar": 1}, {"scalar": 3})
    _add("smooth_l1", _data(3, 8), {})
    _add("hard_sigmoid", _data(3, 8, kind="halves"), {}, {"alpha": 0.5, "beta": 0.25})
    chosen: Inputs = {
        "condition": ((2, 3), "below 2"),
        "x": ((2, 3), "normal"),
        "y": ((2, 3), "normal"),
    }
    _add("where", chosen, exact=True, frozen=("condition",))
    _add("where", {**chosen, "condition": ((2,), "below 2")}, exact=True, frozen=("condition",))


def _reductions() -> None:
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
        _add(op, _data(2, 3, 4, kind="integer" if exact else "normal"), *axes, exact=exact)
    _add("sum_axis", _data(2, 3, 4), {"axis": 1})
    _add(
        "norm",
        _data(2, 3, 4),
        {},
        {"axis": 1},
        {"ord": 1, "axis": 1},
        {"axis": (0, 2)},
        {"axis": 2, "keepdims": True},
        {"ord": 1},
    )
    for op in ("argmax", "argmin"):
        _add(
            op,
            _data(3, 5, kind="integer"),
            {"axis": 1},
            {"axis": 0, "keepdims": True},
            {},
            {"axis": -1},
            exact=True,
            train=False,
        )
    _add("argmax_channel", _data(3, 5, kind="integer"), exact=True, train=False)


def _indexing() -> None:
    weight = {"weight": ((7, 4), "normal")}
    table = {"input_dim": 7, "output_dim": 4}
    for kind in ("below 7", "below 9", "below 7 int32"):
        inputs = {**_data(2, 3, kind=kind), **weight}
        _add("Embedding", inputs, table, exact=True, frozen=("data",))
    for kind in ("below 5", "below 9", "integer"):
        inputs = {"a": ((5, 4), "normal"), "indices": ((2, 3), kind)}
        _add(
            "take",
            inputs,
            {},
            {"mode": "wrap"},
            {"axis": 1},
            {"axis": -1, "mode": "wrap"},
            frozen=("indices",),
        )
    for axis, size in ((1, (4,)), (0, (5,)), (-1, (4,))):
        size = (4,) if axis in (1, -1) else (5,)
        inputs = {**_data(4, 5), "index": (size, "below 6")}
        _add(
            "pick",
            inputs,
            {"axis": axis},
            {"axis": axis, "keepdims": True},
            {"axis": axis, "mode": "wrap"},
            exact=True,
            frozen=("index",),
        )
    for rows in (1, 2, 3):
        inputs = {**_data(3, 4, 5), "indices": ((rows, 6), "below 3")}
        _add("gather_nd", inputs, frozen=("indices",))
    _add(
        "one_hot",
        {"indices": ((2, 3), "below 6")},
        {"depth": 5},
        {"depth": 4, "on_value": 2, "off_value": -1, "dtype": "int32"},
        exact=True,
        train=False,
    )
    for kind in ("value", "indices", "mask"):
        _add(
            "topk",
            _data(3, 7, kind="distinct"),
            {"k": 3, "ret_typ": kind},
            {"k": 2, "ret_typ": kind, "axis": 0, "is_ascend": True},
            exact=True,
            train=False,
        )
    _add(
        "topk",
        _data(3, 7, kind="distinct"),
        {"k": 3, "ret_typ": "both"},
        {"k": 4, "ret_typ": "both", "dtype": "int64"},
        {"k": 0, "ret_typ": "both"},
        exact=True,
        train=False,
        outputs=2,
    )
    _add(
        "topk",
        _data(3, 7, kind="distinct"),
        {"k": 3, "axis": None},
        {"k": 3, "axis": None, "ret_typ": "mask"},
        {"k": 3, "axis": None, "ret_typ": "value"},
        exact=True,
        train=False,
    )
    _add("topk", _data(3, 7, kind="distinct"), {"k": 3, "ret_typ": "value"}, exact=True)
    _add(
        "sort",
        _data(3, 7, kind="distinct"),
        {},
        {"axis": 0, "is_ascend": False},
        {"axis": None},
        exact=True,
    )
    _add(
        "argsort",
        _data(3, 7, kind="distinct"),
        {},
        {"axis": 0, "is_ascend": False},
        {"axis": None, "dtype": "int32"},
        exact=True,
        train=False,
    )
    _add("_np_cumsum", _data(3, 4), {}, {"axis": 1})


OUT_GRAD = "MXNet 1.9.1 multiplies its gradient with the output instead of the output's gradient"


def _losses() -> None:
    scale = {"grad_scale": 2.5}
    for shape, label in (((4, 5), (4,)), ((2, 3, 5), (2,))):
        if label == (2,):
            continue
        inputs = {**_data(*shape), "label": (label, "below 5")}
        ignore = {"use_ignore": True, "ignore_label": 2}
        _add(
            "SoftmaxOutput",
            inputs,
            {},
            scale,
            {"normalization": "batch"},
            {"normalization": "valid"},
            ignore,
            {**ignore, "normalization": "valid"},
            {**ignore, **scale, "normalization": "batch"},
            {"smooth_alpha": 0.1},
            {"smooth_alpha": 0.1, **ignore},
            {"preserve_shape": True},
            frozen=("label",),
        )
    inputs = {**_data(2, 3, 5), "label": ((2, 3), "below 5")}
    _add(
        "SoftmaxOutput",
        inputs,
        {"preserve_shape": True},
        {"preserve_shape": True, "normalization": "valid"},
        {"preserve_shape": True, "normalization": "batch", **scale},
        frozen=("label",),
    )
    ignore = {"use_ignore": True, "ignore_label": 1, "multi_output": True}
    for shape in ((2, 4, 3), (2, 12)):
        inputs = {**_data(2, 3, 4, 3), "label": (shape, "below 3")}
        multi = {"multi_output": True}
        _add(
            "SoftmaxOutput",
            inputs,
            multi,
            {**multi, **scale},
            {**multi, "normalization": "batch"},
            {**multi, "normalization": "valid"},
            ignore,
            {**ignore, "normalization": "valid"},
            {**ignore, "normalization": "batch"},
            {**multi, "smooth_alpha": 0.1},
            frozen=("label",),
        )
    same = {**_data(4, 5), "label": ((4, 5), "positive")}
    _add("SoftmaxOutput", same, {}, scale, {"normalization": "batch"}, frozen=("label",))
    _add("SoftmaxOutput", same, {"out_grad": True}, train=False, note=OUT_GRAD)
    for op in ("LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput"):
        _add(op, {**_data(4, 3), "label": ((4, 3), "normal")}, {}, scale, frozen=("label",))
        _add(op, {**_data(4, 1), "label": ((4,), "normal")}, {}, frozen=("label",))
    _add("make_loss", _data(3, 4))
    _add(
        "MakeLoss",
        _data(3, 4, kind="halves"),
        {},
        scale,
        {"normalization": "batch"},
        {"normalization": "valid"},
        {"normalization": "valid", "valid_thresh": 1, **scale},
    )


for _group in (
    _layers,
    _normalizations,
    _activations,
    _poolings,
    _shapes,
    _arithmetic,
    _reductions,
    _indexing,
    _losses,
):
    _group()

CASES: tuple[Case, ...] = tuple({str(case): case for case in _CASES}.values())
