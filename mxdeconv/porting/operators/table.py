"""The table of operators: for each of MXNet's names a small function that reads attributes.

    @operator("clip")
    def clip(attributes: Attributes) -> Operation:
        return Function(torch.clamp, {"min": attributes.number("a_min"), ...})

It says what the node becomes: a `Function` of its inputs, or a `Layer`, a module with a name.
It sees attributes and the number of inputs only, so that everything a model holds that cannot be
ported is known before anything is built. Raise ValueError for what is not supported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import nn

from mxdeconv.porting.attributes import Attributes

Shape: TypeAlias = tuple[int, ...]
#: Shapes of a node's inputs; None where no data shape is known.
Shapes: TypeAlias = Sequence["Shape | None"]


@dataclass(frozen=True)
class Function:
    """The node is `function(*inputs, **keywords)`, or `function(inputs, **keywords)`."""

    function: Callable[..., Any]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    as_list: bool = False
    outputs: tuple[str, ...] = ("output",)  # several: the function returns a tuple
    labels: tuple[int, ...] = ()  # inputs that may be left out (None) at inference


@dataclass(frozen=True)
class Layer:
    """The node is the module that `make` returns for the shapes of all inputs.

    `parameters` maps the position of an input to the name of the module's own parameter or
    buffer; the module is called with the other inputs. `shapes` gives the shapes of the
    parameters from the shapes of the inputs, for models without parameter files. `constants` are
    parameters that hold one value, whatever the file says (a fixed gamma).
    """

    make: Callable[[Shapes], nn.Module]
    parameters: Mapping[int, str] = field(default_factory=dict)
    shapes: Callable[[Shape], Mapping[int, Shape]] | None = None
    outputs: tuple[str, ...] = ("output",)
    labels: tuple[int, ...] = ()
    constants: Mapping[int, float] = field(default_factory=dict)


Operation: TypeAlias = Function | Layer
Operator: TypeAlias = Callable[[Attributes], Operation]

OPERATORS: dict[str, Operator] = {}


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Enter a function into the table under MXNet's names of the operator."""

    def enter(function: Operator) -> Operator:
        for name in names:
            if name in OPERATORS:
                raise ValueError(f"operator {name} is in the table twice")
            OPERATORS[name] = function
        return function

    return enter


def known(shapes: Shapes, position: int) -> Shape:
    """The shape of an input that `make` cannot do without."""
    shape = shapes[position]
    if shape is None:
        raise ValueError("the shape of its data must be known: pass inputs={name: shape}")
    return shape


def count(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
