from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

class EagerCall:
    def __init__(
        self,
        kernel: Sequence[int],
        num_filter: int,
        no_bias: bool,
        stride: Sequence[int],
        dilate: Sequence[int],
        pad: Sequence[int],
        adj: Sequence[int],
        num_group: int,
        workspace: int,
        cudnn_tune: str | None,
        cudnn_off: bool,
    ) -> None: ...

class FrozenWeight:
    def __init__(self, weight: Tensor) -> None: ...
    @property
    def bytes(self) -> int: ...

def are_plain(*values: object) -> bool: ...
def build_info() -> dict[str, Any]: ...
def call_eagerly(
    call: EagerCall, data: Any, weight: Any, bias: Any, frozen: FrozenWeight | None
) -> Tensor | None: ...
def call_frozen(
    frozen: FrozenWeight, function: Callable[..., Tensor], /, *arguments: Any
) -> Tensor: ...
def choose(
    pass_: str,
    dtype: str,
    batch: int,
    groups: int,
    in_channels: int,
    out_channels: int,
    axes: list[tuple[int, int, int, int, int, int]],
    channels_last: bool,
    workspace: int,
) -> dict[str, Any]: ...
def choose_cuda(
    pass_: str,
    dtype: str,
    batch: int,
    groups: int,
    in_channels: int,
    out_channels: int,
    axes: list[tuple[int, int, int, int, int, int]],
    channels_last: bool,
    workspace: int,
    cudnn_tune: str | None,
    cudnn_off: bool,
    bias: bool,
    device: int,
) -> dict[str, Any]: ...
def force_algorithm(name: str) -> None: ...
def forget_library_decisions() -> None: ...
def library_decisions() -> int: ...
def minimal_filtering() -> bool: ...
def runs() -> dict[str, int]: ...
def set_cpu_isa(name: str) -> None: ...
def set_minimal_filtering(enabled: bool) -> None: ...
def set_poison_scratch(poison: bool) -> None: ...
def survey_cudnn(
    pass_: str,
    dtype: str,
    batch: int,
    groups: int,
    in_channels: int,
    out_channels: int,
    axes: list[tuple[int, int, int, int, int, int]],
    channels_last: bool,
    bias: bool,
    allow_tf32: bool,
    deterministic: bool,
    device: str,
) -> dict[str, Any]: ...
