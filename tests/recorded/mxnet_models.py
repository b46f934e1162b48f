"""Models with Deconvolution that others published, rebuilt in MXNet from their definitions.

Each function takes a width, the number of channels that the others are multiples of: the one of
the publication, or a small one. GluonCV's models are taken from GluonCV itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import mxnet as mx

Shapes = dict[str, tuple[int, ...]]


class Model(NamedTuple):
    """`build(width)` is the symbol; `shapes` and `full_shapes` are those of its inputs."""

    build: Callable[[int], Any]
    width: int
    full_width: int
    shapes: Shapes
    full_shapes: Shapes
    source: str
    labels: int = 0  # number of classes of the label, if there is one
    gradients: bool = True
    nodes: bool = False
    #: Gradients of names that end so are not recorded, because MXNet's are wrong.
    wrong_gradients: str | None = None


def _conv(data: Any, filters: int, kernel: int, name: str, **attrs: Any) -> Any:
    return mx.sym.Convolution(data, num_filter=filters, kernel=(kernel, kernel), name=name, **attrs)


# ---- FCN-8s --------------------------------------------------------------------------------------


def _vgg_group(data: Any, group: int, filters: int, count: int, first_pad: int = 1) -> Any:
    for number in range(1, count + 1):
        pad = first_pad if number == 1 else 1
        name = f"{group}_{number}"
        data = _conv(data, filters, 3, f"conv{name}", pad=(pad, pad))
        data = mx.sym.Activation(data, act_type="relu", name=f"relu{name}")
    return mx.sym.Pooling(data, pool_type="max", kernel=(2, 2), stride=(2, 2), name=f"pool{group}")


def fcn8s(width: int, classes: int = 5) -> Any:
    """FCN-8s on VGG-16: scores of three depths, enlarged and cropped to each other."""
    data = mx.sym.Variable("data")
    pools = [data]
    for group, (factor, count) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)), 1):
        pad = 100 if group == 1 else 1
        pools.append(_vgg_group(pools[-1], group, factor * width, count, pad))
    score = pools[5]
    for name, kernel in (("6", 7), ("7", 1)):
        score = _conv(score, 64 * width, kernel, f"fc{name}")
        score = mx.sym.Activation(score, act_type="relu", name=f"relu{name}")
        score = mx.sym.Dropout(score, p=0.5, name=f"drop{name}")
    score = _conv(score, classes, 1, "score")
    for name, pool, offset in (("4", 4, 5), ("3", 3, 9)):
        enlarged = mx.sym.Deconvolution(
            score,
            kernel=(4, 4),
            stride=(2, 2),
            num_filter=classes,
            adj=(1, 1),
            name="score2" if pool == 4 else "score4",
        )
        skipped = _conv(pools[pool], classes, 1, f"score_pool{name}")
        skipped = mx.sym.Crop(skipped, enlarged, offset=(offset, offset), name=f"score_pool{name}c")
        score = enlarged + skipped
    score = mx.sym.Deconvolution(
        score, kernel=(16, 16), stride=(8, 8), adj=(7, 7), num_filter=classes, name="bigscore"
    )
    score = mx.sym.Crop(score, data, offset=(31, 31), name="upscore")
    return mx.sym.SoftmaxOutput(
        score, multi_output=True, use_ignore=True, ignore_label=255, name="softmax"
    )


# ---- generators ----------------------------------------------------------------------------------


def dcgan_generator(width: int) -> Any:
    data = mx.sym.Variable("rand")
    for number, factor in enumerate((8, 4, 2, 1), 1):
        step = {} if number == 1 else {"stride": (2, 2), "pad": (1, 1)}
        data = mx.sym.Deconvolution(
            data, kernel=(4, 4), num_filter=factor * width, no_bias=True, name=f"g{number}", **step
        )
        data = mx.sym.BatchNorm(data, fix_gamma=True, eps=1e-5 + 1e-12, name=f"gbn{number}")
        data = mx.sym.Activation(data, act_type="relu", name=f"gact{number}")
    data = mx.sym.Deconvolution(
        data, kernel=(4, 4), stride=(2, 2), pad=(1, 1), num_filter=3, no_bias=True, name="g5"
    )
    return mx.sym.Activation(data, act_type="tanh", name="gact5")


def vaegan_generator(width: int, z_dim: int = 12) -> Any:
    data = mx.sym.Reshape(mx.sym.Variable("rand"), shape=(-1, z_dim, 1, 1))
    for number, (factor, size) in enumerate(((8, 2), (4, 4), (2, 8), (1, 16)), 1):
        data = mx.sym.Deconvolution(
            data,
            kernel=(5, 5),
            stride=(2, 2),
            target_shape=(size, size),
            num_filter=factor * width,
            no_bias=True,
            name=f"gen{number}",
        )
        data = mx.sym.BatchNorm(data, fix_gamma=True, eps=1e-5 + 1e-12, name=f"genbn{number}")
        data = mx.sym.Activation(data, act_type="relu", name=f"genact{number}")
    data = mx.sym.Deconvolution(
        data,
        kernel=(5, 5),
        stride=(2, 2),
        target_shape=(32, 32),
        num_filter=1,
        no_bias=True,
        name="gen5",
    )
    return mx.sym.Activation(data, act_type="sigmoid", name="genact5")


# ---- segmentation --------------------------------------------------------------------------------


def _unet_block(data: Any, filters: int, block: int) -> Any:
    for number in (1, 2):
        name = f"{block}_{number}"
        data = _conv(data, filters, 3, f"conv{name}", pad=(1, 1))
        data = mx.sym.BatchNorm(data, fix_gamma=True, name=f"bn{name}")
        data = mx.sym.Activation(data, act_type="relu", name=f"relu{name}")
    return data


def unet(width: int, classes: int = 3) -> Any:
    """U-Net whose decoder doubles the size with kernel 2 and stride 2."""
    data = mx.sym.Variable("data")
    skips = []
    for block, factor in enumerate((1, 2, 4, 8), 1):
        skips.append(_unet_block(data, factor * width, block))
        data = mx.sym.Pooling(
            skips[-1], kernel=(2, 2), stride=(2, 2), pool_type="max", name=f"pool_{block}"
        )
    data = _unet_block(data, 16 * width, 5)
    for block, factor in enumerate((8, 4, 2, 1), 6):
        data = mx.sym.Deconvolution(
            data,
            num_filter=factor * width,
            kernel=(2, 2),
            stride=(2, 2),
            no_bias=True,
            name=f"trans_conv_{block}",
        )
        data = mx.sym.concat(data, skips.pop(), dim=1, name=f"concat_{block}")
        data = _unet_block(data, factor * width, block)
    return mx.sym.softmax(_conv(data, classes, 1, "conv10_1"), axis=1, name="mask")


def vnet(width: int, classes: int = 2) -> Any:
    """V-Net: residual stages in three dimensions, PReLU, strided (de)convolutions."""

    def stage(data: Any, filters: int, count: int, name: str, residual: Any) -> Any:
        for number in range(count):
            data = mx.sym.Convolution(
                data, kernel=(5, 5, 5), pad=(2, 2, 2), num_filter=filters, name=f"{name}_c{number}"
            )
            if number == count - 1:
                data = mx.sym.broadcast_add(data, residual, name=f"{name}_add")
            data = mx.sym.LeakyReLU(data, act_type="prelu", name=f"{name}_p{number}")
        return data

    data = mx.sym.Variable("data")
    step: dict[str, Any] = {"kernel": (2, 2, 2), "stride": (2, 2, 2)}
    skips = []
    tiled = mx.sym.tile(data, reps=(1, width, 1, 1, 1), name="input_tile")
    data = stage(data, width, 1, "down1", tiled)
    for level, count in ((2, 2), (3, 3)):
        skips.append(data)
        filters = width * 2 ** (level - 1)
        data = mx.sym.Convolution(data, num_filter=filters, name=f"down{level}", **step)
        data = mx.sym.LeakyReLU(data, act_type="prelu", name=f"down{level}_p")
        data = stage(data, filters, count, f"down{level}", data)
    for level, count in ((2, 2), (1, 1)):
        filters = width * 2**level
        data = mx.sym.Deconvolution(
            data, num_filter=filters // 2, no_bias=False, name=f"up{level}", **step
        )
        data = mx.sym.LeakyReLU(data, act_type="prelu", name=f"up{level}_p")
        data = mx.sym.Concat(data, skips.pop(), dim=1, name=f"up{level}_concat")
        data = stage(data, filters, count, f"up{level}", data)
    data = mx.sym.Convolution(data, kernel=(1, 1, 1), num_filter=classes, name="score")
    return mx.sym.SoftmaxActivation(data, mode="channel", name="softmax")


# ---- face detection ------------------------------------------------------------------------------


def face_pyramid(width: int) -> Any:
    """The top of a face detector's feature pyramid: fixed depthwise bilinear upsampling."""
    data = mx.sym.Variable("data")
    levels = []
    for number, factor in enumerate((1, 2, 2), 1):
        data = _conv(
            data, factor * width, 3, f"stage{number}", pad=(1, 1), stride=(2, 2), no_bias=True
        )
        data = mx.sym.BatchNorm(data, fix_gamma=False, eps=2e-5, name=f"stage{number}_bn")
        data = mx.sym.LeakyReLU(data, act_type="leaky", slope=0.1, name=f"stage{number}_act")
        levels.append(_conv(data, width, 1, f"lateral{number}"))
    merged = levels[2]
    heads = []
    for number in (2, 1):
        fixed = {"__lr_mult__": "0.0", "__wd_mult__": "0.0"}
        enlarged = mx.sym.Deconvolution(
            merged,
            num_filter=width,
            num_group=width,
            kernel=(4, 4),
            stride=(2, 2),
            pad=(1, 1),
            no_bias=True,
            attr=fixed,
            name=f"up{number}",
        )
        enlarged = mx.sym.Crop(enlarged, levels[number - 1], name=f"up{number}_crop")
        merged = enlarged + levels[number - 1]
        score = mx.sym.Reshape(_conv(merged, 4, 1, f"cls{number}"), shape=(0, 2, -1, 0))
        heads.append(mx.sym.SoftmaxActivation(score, mode="channel", name=f"cls{number}_prob"))
        heads.append(_conv(merged, 8, 1, f"bbox{number}"))
    return mx.sym.Group(heads)


# ---- the spellings of 2015 -----------------------------------------------------------------------


def old_segmentation(width: int) -> Any:
    """A small network written down as MXNet 0.8 saved it: `param`, `attr`, longs, no aux inputs."""
    return mx.sym.load_json(old_json(width))


def old_json(width: int) -> str:
    def node(op: str, name: str, inputs: list[list[int]], **param: str) -> dict[str, Any]:
        entry = {"op": op, "param": param, "name": name, "inputs": inputs}
        return {**entry, "backward_source_id": -1}

    nodes = [
        node("null", "data", []),
        node("null", "conv_weight", []),
        node("null", "conv_bias", []),
        node(
            *("Convolution", "conv", [[0, 0], [1, 0], [2, 0]]),
            kernel="(3L, 3L)",
            stride="(2L,2L)",
            dilate="(1L, 1L)",
            pad="(1L, 1L)",
            num_filter=str(width),
            num_group="1",
            workspace="512",
            no_bias="False",
        ),
        node("null", "bn_gamma", []),
        node("null", "bn_beta", []),
        node(
            *("BatchNorm", "bn", [[3, 0], [4, 0], [5, 0]]),
            eps="0.001",
            momentum="0.9",
            fix_gamma="False",
            use_global_stats="0",
        ),
        node("Activation", "act", [[6, 0]], act_type="relu"),
        node("null", "up_weight", []),
        node(
            *("Deconvolution", "up", [[7, 0], [8, 0]]),
            kernel="(4L, 4L)",
            stride="(2L, 2L)",
            pad="(1L, 1L)",
            adj="(0L, 0L)",
            target_shape="(0L, 0L)",
            num_filter="3",
            num_group="1",
            workspace="512",
            no_bias="True",
        ),
        node("null", "softmax_label", []),
        node(
            *("SoftmaxOutput", "softmax", [[9, 0], [10, 0]]),
            grad_scale="0.5",
            ignore_label="0",
            multi_output="True",
            use_ignore="1",
        ),
    ]
    nodes[3]["attr"] = {"weight_lr_mult": "0.5"}
    nodes[8]["attr"] = {"lr_mult": "0.1"}
    arguments = [number for number, each in enumerate(nodes) if each["op"] == "null"]
    return json.dumps({"nodes": nodes, "arg_nodes": arguments, "heads": [[11, 0]]})


# ---- GluonCV -------------------------------------------------------------------------------------


def gluoncv(name: str) -> Callable[[int], Any]:
    """The whole exported graph of one of GluonCV's models, decoding included."""

    def build(width: int) -> Any:
        import tempfile

        from gluoncv import model_zoo

        net = model_zoo.get_model(name, pretrained=False, pretrained_base=False)
        net.initialize()
        net.hybridize()
        net(mx.nd.zeros((1, 3, 64, 64)))
        with tempfile.TemporaryDirectory() as folder:
            net.export(f"{folder}/net")
            return mx.sym.load(f"{folder}/net-symbol.json")

    return build


def _image(*shape: int) -> Shapes:
    return {"data": shape}


_ZOO = "GluonCV 0.10.5, model_zoo.get_model({!r})"
MODELS: dict[str, Model] = {
    "fcn8s": Model(
        fcn8s,
        *(1, 64),
        {"data": (1, 3, 40, 36), "softmax_label": (1, 40, 36)},
        {"data": (1, 3, 224, 224), "softmax_label": (1, 224, 224)},
        "apache/mxnet, example/fcn-xs/symbol_fcnxs.py, get_fcn8s_symbol",
        labels=5,
        gradients=False,  # its Dropout is random
    ),
    "dcgan": Model(
        dcgan_generator,
        *(3, 64),
        {"rand": (2, 10, 1, 1)},
        {"rand": (2, 100, 1, 1)},
        "apache/mxnet, example/gan/dcgan.py, make_dcgan_sym",
    ),
    "vaegan": Model(
        vaegan_generator,
        *(3, 64),
        {"rand": (2, 12)},
        {"rand": (2, 12)},
        "apache/mxnet, example/vae-gan/vaegan_mxnet.py, generator",
    ),
    "unet": Model(
        unet,
        *(2, 32),
        _image(1, 1, 32, 32),
        _image(1, 1, 240, 240),
        "eventuo/sagemaker-brain-seg-demo, source_dir/models.py, build_unet",
    ),
    "vnet": Model(
        vnet,
        *(2, 16),
        _image(1, 1, 8, 8, 8),
        _image(1, 1, 64, 64, 64),
        "Milletari et al., V-Net, arXiv 1606.04797, figure 2, three levels of it",
        # behind a oneDNN convolution; finite differences of MXNet's own outputs say so
        wrong_gradients="gamma",
    ),
    "face_pyramid": Model(
        face_pyramid,
        *(8, 64),
        _image(1, 3, 48, 40),
        _image(1, 3, 480, 640),
        "deepinsight/insightface, detection/retinaface/rcnn/symbol/symbol_common.py, upsampling",
        nodes=True,
    ),
    "old_json": Model(
        old_segmentation,
        *(4, 64),
        {"data": (2, 3, 12, 10), "softmax_label": (2, 12, 10)},
        {"data": (2, 3, 224, 224), "softmax_label": (2, 224, 224)},
        "written for this test in the format of MXNet 0.8",
        labels=3,
    ),
}
for _name in ("simple_pose_resnet18_v1b", "center_net_resnet18_v1b_coco", "center_net_dla34_coco"):
    _pose = _name.startswith("simple")
    MODELS[_name] = Model(
        gluoncv(_name),
        *(0, 0),
        _image(2 if _pose else 1, 3, 64, 64),
        _image(1, 3, 256, 192) if _pose else _image(1, 3, 512, 512),
        _ZOO.format(_name),
        gradients=_pose,
    )
