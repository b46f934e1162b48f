"""The cases of layers, and of losses."""

from __future__ import annotations

from typing import Any

from operator_case import add, data


def layers() -> None:
    for rank, shape in ((1, (2, 4, 9)), (2, (2, 4, 7, 8)), (3, (1, 4, 4, 5, 6))):
        k, two = (3,) * rank, (2,) * rank
        for group, bias in ((1, True), (2, False), (4, True)):
            weight = (6 if group < 4 else 4, 4 // group, *k)
            inputs = {**data(*shape), "weight": (weight, "normal")}
            attrs = {"kernel": k, "num_filter": weight[0], "num_group": group}
            if bias:
                inputs["bias"] = ((weight[0],), "normal")
            else:
                attrs["no_bias"] = True
            add("Convolution", inputs, attrs, {**attrs, "stride": two, "pad": (1,) * rank})
            if rank < 3:
                add("Convolution", inputs, {**attrs, "dilate": two, "pad": two})
    for rank, shape in ((1, (2, 4, 5)), (2, (2, 4, 3, 4)), (3, (1, 4, 2, 3, 2))):
        k, two, one = (4,) * rank, (2,) * rank, (1,) * rank
        for group in (1, 2):
            weight = (4, 6 // group, *k)
            inputs = {**data(*shape), "weight": (weight, "normal")}
            attrs = {"kernel": k, "num_filter": 6, "num_group": group, "stride": two, "pad": one}
            add("Deconvolution", inputs, attrs, {**attrs, "adj": one})
            biased = {**inputs, "bias": ((6,), "normal")}
            add("Deconvolution", biased, {**attrs, "no_bias": "False"})
    weight = {"weight": ((4, 2, 4, 4), "normal")}
    attrs = {"kernel": (4, 4), "num_filter": 2, "stride": (2, 2), "pad": (1, 1)}
    add("Deconvolution", {**data(1, 4, 3, 4), **weight}, {**attrs, "target_shape": (6, 7)})
    for sample in (1, 2, 3, 4, 5):
        size = 2 * sample - sample % 2
        inputs = {**data(1, 3, 3, 2), "weight": ((3, 1, size, size), "normal")}
        common = {"scale": sample, "sample_type": "bilinear", "num_filter": 3, "num_args": 2}
        add("UpSampling", inputs, common)
        add(
            "UpSampling",
            data(1, 3, 3, 2),
            {"scale": sample, "sample_type": "nearest", "num_args": 1},
        )
    several = {"a": ((1, 2, 2, 3), "normal"), "b": ((1, 2, 4, 6), "normal")}
    common = {"scale": 4, "sample_type": "nearest", "num_args": 2}
    add("UpSampling", several, common, {**common, "multi_input_mode": "sum"})
    for flatten, shape, features in (
        (True, (3, 2, 4), 8),
        (True, (3, 5), 5),
        (False, (3, 2, 4), 4),
    ):
        inputs = {**data(*shape), "weight": ((6, features), "normal")}
        add("FullyConnected", inputs, {"num_hidden": 6, "no_bias": True, "flatten": flatten})
        inputs["bias"] = ((6,), "normal")
        add("FullyConnected", inputs, {"num_hidden": 6, "flatten": flatten})
    a, b = {"lhs": ((3, 4), "normal")}, {"rhs": ((4, 5), "normal")}
    add("dot", {**a, **b})
    add("dot", {"lhs": ((4, 3), "normal"), **b}, {"transpose_a": True})
    add("dot", {**a, "rhs": ((5, 4), "normal")}, {"transpose_b": True})
    add("dot", {"lhs": ((2, 3, 4), "normal"), "rhs": ((4, 5), "normal")})
    add("dot", {"lhs": ((4, 3, 2), "normal"), "rhs": ((4, 5), "normal")}, {"transpose_a": True})
    add("dot", {"lhs": ((4,), "normal"), "rhs": ((4,), "normal")})
    add("batch_dot", {"lhs": ((2, 3, 4), "normal"), "rhs": ((2, 4, 5), "normal")})
    both = {"transpose_a": True, "transpose_b": True}
    matrices = {"lhs": ((2, 3, 4), "normal"), "rhs": ((2, 4, 5), "normal")}
    add("_linalg_gemm2", matrices, {}, {"alpha": 2.5})
    add(
        "_linalg_gemm2",
        {"lhs": ((3, 2, 4), "normal"), "rhs": ((4, 2, 5), "normal")},
        {"axis": 0},
    )
    add("batch_dot", {"lhs": ((2, 4, 3), "normal"), "rhs": ((2, 5, 4), "normal")}, both)


def normalizations() -> None:
    vector = {
        "gamma": ((3,), "normal"),
        "beta": ((3,), "normal"),
        "mean": ((3,), "normal"),
        "var": ((3,), "positive"),
    }
    fixed = {"fix_gamma": False}
    for shape in ((4, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)):
        add("BatchNorm", {**data(*shape), **vector}, {}, fixed, aux=("mean", "var"))
    add(
        "BatchNorm",
        {**data(2, 3, 4, 5), **vector},
        {"use_global_stats": True, **fixed},
        {"use_global_stats": True},
        {"eps": 1e-5, "momentum": 0.6, **fixed},
        {"eps": "1e-05", "momentum": 0, "cudnn_off": True, **fixed},
        aux=("mean", "var"),
    )
    add(
        "BatchNorm",
        {**data(2, 4, 5, 3), **vector},
        {"axis": 3},
        {"axis": -1, **fixed},
        aux=("mean", "var"),
    )
    add("BatchNorm", {**data(1, 3, 1, 1), **vector}, fixed, aux=("mean", "var"))
    add(
        "BatchNorm",
        {**data(2, 3, 4, 5), **vector},
        {"output_mean_var": True, **fixed},
        aux=("mean", "var"),
        outputs=3,
    )
    affine = {"gamma": ((3,), "normal"), "beta": ((3,), "normal")}
    for shape in ((2, 3, 5), (2, 3, 4, 5)):
        add("InstanceNorm", {**data(*shape), **affine}, {}, {"eps": 1e-5})
    add("LayerNorm", {**data(2, 4, 3), **affine}, {}, {"eps": 1e-3})
    add("LayerNorm", {**data(2, 3, 4), **affine}, {"axis": 1})
    add("LayerNorm", {**data(2, 4, 3), **affine}, {"output_mean_var": True}, outputs=3)
    groups = {"gamma": ((2,), "normal"), "beta": ((2,), "normal")}
    add("GroupNorm", {**data(2, 6, 3, 4), **groups}, {"num_groups": 2})
    with_moments = {"num_groups": 2, "eps": 0.1, "output_mean_var": True}
    add("GroupNorm", {**data(2, 6, 3, 4), **groups}, with_moments, outputs=3)
    modes = [{"mode": mode} for mode in ("instance", "channel", "spatial")]
    add("L2Normalization", data(2, 3, 4, 5), {}, *modes, {"eps": 1e-2})
    add("L2Normalization", data(2, 5))
    add("LRN", data(2, 7, 3, 4), {"nsize": 3}, {"nsize": 5, "alpha": 0.1, "beta": 0.5, "knorm": 1})


SELU = "MXNet's gradient of selu is wrong: lambda * (alpha + out), not lambda * alpha + out"


INSTANCE = "MXNet's gradient is not that of its forward pass for data of more than two axes"


def activations() -> None:
    for kind in ("relu", "sigmoid", "tanh", "softrelu", "softsign"):
        add("Activation", data(2, 3, 5), {"act_type": kind})
    add("LeakyReLU", data(2, 3, 5), {"act_type": "selu"}, train=False, note=SELU)
    for kind in ("leaky", "elu", "gelu"):
        add("LeakyReLU", data(2, 3, 5), {"act_type": kind}, {"act_type": kind, "slope": 0.1})
    add("LeakyReLU", data(2, 3, 5), {"act_type": "rrelu"}, train=False)
    bounds = {"act_type": "rrelu", "lower_bound": 0.2, "upper_bound": 0.6}
    add("LeakyReLU", data(2, 3, 5), bounds, train=False)
    for shape, channels in (((2, 3, 5), 3), ((2, 3, 4, 2), 3), ((4, 3), 3), ((2, 3, 5), 1)):
        inputs = {**data(*shape), "gamma": ((channels,), "unit")}
        add("LeakyReLU", inputs, {"act_type": "prelu"})
    for op in ("softmax", "log_softmax", "softmin"):
        add(op, data(2, 3, 5), {}, {"axis": 1}, {"axis": 0, "temperature": 2.5})
        add(op, data(2, 3, 5), {"dtype": "float64"}, train=False)
    lengths = {**data(2, 4, 3), "length": ((2, 3), "below 5 int32")}
    add("softmax", lengths, {"axis": 1, "use_length": True}, frozen=("length",))
    modes = {"mode": "instance"}, {"mode": "channel"}
    add("SoftmaxActivation", data(2, 3), {}, *modes)
    add("SoftmaxActivation", data(2, 3, 4), modes[1])
    add("SoftmaxActivation", data(2, 3, 4), {}, modes[0], train=False, note=INSTANCE)
    add("Dropout", data(3, 4), {"p": 0.5}, {"p": 0.25, "axes": (1,)}, train=False, exact=True)
    add("Dropout", data(3, 4), {"p": 0.0, "mode": "always"}, exact=True)


def poolings() -> None:
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
                add(
                    "Pooling",
                    data(*shape, kind="distinct"),
                    *({**base, **a, **full} for a in attrs),
                    exact=exact,
                )
            kernel = {"kernel": k3, "global_pool": True}
            add("Pooling", data(*shape, kind="distinct"), {**base, **kernel}, exact=exact)
    for n in range(3, 9):  # every remainder of MXNet's rounding, stride beyond the kernel
        for k, s, p in ((2, 3, 0), (2, 3, 1), (1, 3, 0), (3, 2, 1), (2, 2, 1), (2, 4, 1)):
            attrs = {
                "kernel": (k, k),
                "stride": (s, s),
                "pad": (p, p),
                "pooling_convention": "full",
            }
            square = data(1, 1, n, n, kind="distinct")
            add("Pooling", square, attrs, exact=True)
            add(
                "Pooling",
                square,
                {**attrs, "pool_type": "avg"},
                {**attrs, "pool_type": "avg", "count_include_pad": False},
            )
    for p in ((1, 1), (2, 1)):
        attrs = {"kernel": (4, 3), "stride": (2, 1), "pad": p, "pool_type": "avg"}
        add("Pooling", data(1, 2, 7, 6), attrs, {**attrs, "count_include_pad": False})
    add("Pooling", data(1, 2, 5, 6), {"pool_type": "lp", "p_value": 1, "kernel": (2, 2)})
    add(
        "Pooling",
        data(1, 2, 5, 6),
        {"pool_type": "avg", "global_pool": True},
        {"pool_type": "max", "global_pool": "1", "kernel": "(2L, 2L)", "pad": (1, 1)},
    )
    add("Pooling", data(1, 2, 5, 6), {"pool_type": "lp", "p_value": 3, "kernel": (2, 2)})
    sizes = {"output_size": 3}, {"output_size": (2, 3)}
    add("_contrib_AdaptiveAvgPooling2D", data(1, 2, 5, 7), {}, *sizes)
    size = {"height": 7, "width": 4}
    resized = size, {**size, "align_corners": False}, {"scale_height": 2, "scale_width": 1.5}
    add("_contrib_BilinearResize2D", data(1, 2, 5, 6), *resized)
    like = {**data(1, 2, 5, 6), "like": ((1, 3, 8, 9), "normal")}
    add("_contrib_BilinearResize2D", like, {"mode": "like"})
    add("_contrib_div_sqrt_dim", data(2, 3, 5))
    for stride in (1, 2, 3):  # MXNet reads three values of pad
        attrs = {
            "kernel": (2,),
            "stride": (stride,),
            "pooling_convention": "same",
            "pad": (0, 0, 0),
        }
        add("Pooling", data(1, 2, 7, kind="distinct"), attrs, exact=True)


OUT_GRAD = "MXNet 1.9.1 multiplies its gradient with the output instead of the output's gradient"


def losses() -> None:
    scale = {"grad_scale": 2.5}
    for shape, label in (((4, 5), (4,)), ((2, 3, 5), (2,))):
        if label == (2,):
            continue
        inputs = {**data(*shape), "label": (label, "below 5")}
        ignore = {"use_ignore": True, "ignore_label": 2}
        add(
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
    inputs = {**data(2, 3, 5), "label": ((2, 3), "below 5")}
    add(
        "SoftmaxOutput",
        inputs,
        {"preserve_shape": True},
        {"preserve_shape": True, "normalization": "valid"},
        {"preserve_shape": True, "normalization": "batch", **scale},
        frozen=("label",),
    )
    ignore = {"use_ignore": True, "ignore_label": 1, "multi_output": True}
    for shape in ((2, 4, 3), (2, 12)):
        inputs = {**data(2, 3, 4, 3), "label": (shape, "below 3")}
        multi = {"multi_output": True}
        add(
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
    same = {**data(4, 5), "label": ((4, 5), "positive")}
    add("SoftmaxOutput", same, {}, scale, {"normalization": "batch"}, frozen=("label",))
    add("SoftmaxOutput", same, {"out_grad": True}, train=False, note=OUT_GRAD)
    for op in ("LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput"):
        add(op, {**data(4, 3), "label": ((4, 3), "normal")}, {}, scale, frozen=("label",))
        add(op, {**data(4, 1), "label": ((4,), "normal")}, {}, frozen=("label",))
    add("make_loss", data(3, 4))
    add(
        "MakeLoss",
        data(3, 4, kind="halves"),
        {},
        scale,
        {"normalization": "batch"},
        {"normalization": "valid"},
        {"normalization": "valid", "valid_thresh": 1, **scale},
    )
