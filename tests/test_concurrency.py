"""Python threads, forked and spawned processes: every call computes what a lone one does.

Values are compared to the last bit: the order of a sum depends on the problem alone.
"""

from __future__ import annotations

import copy
import faulthandler
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mxdeconv

# Every tensor stays below the size at which torch's own element-wise operators use threads: in a
# fork of a process that has used some, those wait forever.
DATA = torch.randn(2, 16, 8, 7, generator=torch.Generator().manual_seed(0))
SECONDS = 60  # until a child that hangs is ended


def up(**more: object) -> mxdeconv.Deconvolution:
    """A layer large enough to be shared among threads, its parameters fixed."""
    torch.manual_seed(0)
    given = {"num_filter": 32, "kernel": (7, 7), "stride": (2, 2), "no_bias": False}
    return mxdeconv.Deconvolution(**{**given, "in_channels": 16, **more})


def step(module: nn.Module, data: Tensor) -> list[Tensor]:
    """The output and all gradients, left nowhere but in the result."""
    data = data.clone().requires_grad_()
    out = module(data)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [data, *module.parameters()])]


def same(got: list[Tensor], expected: list[Tensor]) -> bool:
    return all(map(torch.equal, got, expected))


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """torch's number of threads during the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


# Threads --------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads through /proc")
@pytest.mark.parametrize("count", [1, 2])
def test_as_many_threads_as_torch_says(count: int) -> None:
    """A call starts the threads that torch.set_num_threads allows, and none for one."""
    program = (
        "import os, torch, mxdeconv\n"
        "torch.set_num_threads(1)\n"
        "data, weight = torch.ones(4, 64, 32, 32), torch.ones(64, 64, 4, 4)\n"
        f"torch.set_num_threads({count})\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "mxdeconv.deconvolution(data, weight, kernel=(4, 4), stride=(2, 2), num_filter=64)\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == count - 1


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shared", [True, False], ids=["one-module", "a-module-each"])
def test_concurrent_steps(shared: bool) -> None:
    module = up()
    modules = [module if shared else copy.deepcopy(module) for _ in range(4)]
    inputs = [DATA + number for number in range(4)]
    expected = [step(module, data) for data in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for got, wanted in zip(pool.map(step, modules, inputs), expected, strict=True):
                assert same(got, wanted)


@pytest.mark.usefixtures("threads")
def test_concurrent_calls_of_different_layers() -> None:
    """Other ranks, dtypes, sizes, algorithms, errors among them, at the same time."""
    layers = [
        (up(), DATA),
        (up(num_filter=16, num_group=16), DATA),
        (up(kernel=(3, 3), stride=(1, 1), dtype=torch.float64), DATA.double()),
        (up(kernel=(16,), stride=(8,), dtype=torch.bfloat16), DATA[..., 0].bfloat16()),
        (up(kernel=(2, 2, 2), stride=(2, 2, 2)), DATA[..., None]),
    ]
    expected = [step(module, data) for module, data in layers]

    def run(number: int) -> bool:
        module, data = layers[number % len(layers)]
        if number % 7 == 0:
            with pytest.raises(ValueError, match="weight must have shape"):
                module(data[:, :8])
        return same(step(module, data), expected[number % len(layers)])

    with ThreadPoolExecutor(5) as pool:
        assert all(pool.map(run, range(200)))


def test_a_thread_of_its_own_number() -> None:
    """torch keeps the number of threads for each Python thread; results do not show it."""
    module = up()
    expected = step(module, DATA)

    def run(count: int) -> bool:
        torch.set_num_threads(count)
        return same(step(module, DATA), expected)

    before = torch.get_num_threads()
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(run, [1, 2, 3] * 10))
    torch.set_num_threads(before)


# Processes ------------------------------------------------------------------------------------


WAYS_TO_START = pytest.mark.parametrize(
    ("method", "threads"), [("fork", 1), ("fork", 2), ("spawn", 2)], indirect=["threads"]
)


def succeeds_in_a_fork(work: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        faulthandler.register(signal.SIGALRM, chain=True)  # and ends the child, by default
        signal.alarm(SECONDS)
        status = 1
        try:
            status = 0 if work() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.usefixtures("threads")
def test_a_fork_computes() -> None:
    """After the parent has used its threads: a fork has none of them."""
    module = up()
    expected = step(module, DATA)
    assert succeeds_in_a_fork(lambda: same(step(module, DATA), expected))
    assert same(step(module, DATA), expected)  # and the parent goes on


@pytest.mark.usefixtures("threads")
def test_a_fork_of_a_fork_and_threads_of_a_fork() -> None:
    module = up()
    expected = step(module, DATA)

    def in_threads() -> bool:
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(step, [module] * 8, [DATA] * 8))
        return all(same(got, expected) for got in results)

    assert succeeds_in_a_fork(lambda: succeeds_in_a_fork(in_threads) and in_threads())


# Of autograd nothing runs while another thread forks: torch's locks (of a parameter's gradient, of
# its profiler) may then be held, and a child that trains would wait for them forever.


def passes(module: mxdeconv.Deconvolution, data: Tensor) -> list[Tensor]:
    """The three passes, without autograd."""
    with torch.no_grad():
        weight, arguments = module.weight.detach(), module._call.arguments
        out = mxdeconv.ops.deconvolution(data, weight, None, arguments)
        return [
            out,
            mxdeconv.ops.deconvolution_data(weight, out, arguments),
            mxdeconv.ops.deconvolution_weight(data, out, arguments),
        ]


def test_a_fork_while_other_threads_compute() -> None:
    """What those threads held at that moment is lost to the child, which must not need it."""
    module = up()
    expected = passes(module, DATA)
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(passes, module, DATA) for _ in range(100)]
        for _ in range(5):
            assert succeeds_in_a_fork(lambda: same(passes(module, DATA), expected))
        assert all(same(future.result(), expected) for future in busy)


def test_a_fork_while_other_threads_prepare_weights() -> None:
    """A fork waits for the thread that prepares a frozen module's weights."""
    module = up(in_channels=256, num_filter=256, kernel=(4, 4), no_bias=True).eval()
    data = torch.ones(1, 256, 2, 2)

    def infer() -> list[Tensor]:
        with torch.no_grad():
            return [module(data)]

    def prepare_and_infer() -> list[Tensor]:
        module.freeze()
        return infer()

    expected = infer()
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(prepare_and_infer) for _ in range(100)]
        for _ in range(5):
            assert succeeds_in_a_fork(lambda: same(infer(), expected))
        assert all(same(future.result(), expected) for future in busy)


def compute_in_child(module: nn.Module, data: Tensor, expected: list[Tensor]) -> None:
    sys.exit(0 if same(step(module, data), expected) else 1)


@WAYS_TO_START
def test_torch_multiprocessing(method: str, threads: int) -> None:
    module = up()
    expected = step(module, DATA)
    context = torch.multiprocessing.get_context(method)
    children = [
        context.Process(target=compute_in_child, args=(module, DATA, expected)) for _ in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(SECONDS)
        child.kill()
    assert [child.exitcode for child in children] == [0, 0]


class Enlarged(torch.utils.data.Dataset[Tensor]):
    """A data set whose samples are deconvolutions, computed in the loader's process."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        with torch.no_grad():
            result: Tensor = self.module(DATA[:1] + index)[0]
        return result


@WAYS_TO_START
def test_data_loader(method: str, threads: int) -> None:
    module = up()
    samples = Enlarged(module)
    expected = torch.stack([samples[i] for i in range(len(samples))])
    loader = torch.utils.data.DataLoader(
        samples, batch_size=2, num_workers=2, multiprocessing_context=method, timeout=SECONDS
    )
    assert torch.equal(torch.cat(list(loader)), expected)
