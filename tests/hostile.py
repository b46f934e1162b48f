"""Hostile calls, from a seed: none may kill the process, hang it or take absurd memory.

    python tests/hostile.py --calls 10000 --seed 0      # all of them, in worker processes
    python tests/hostile.py --seed 0 --only 1234        # one of them, in this process

A call is a line of Python that builds its arguments and runs them: a good call in which a few
arguments were replaced by bad ones, chosen by `hostile_calls.py`. Each must end, promptly, in a
result or in a ValueError or TypeError; the raw operators may also raise the RuntimeError with
which torch refuses what does not fit their schema. Workers run under a limit of address space,
and the parent notices when one dies or stays silent.
"""

from __future__ import annotations

import argparse
import ast
import collections
import faulthandler
import os
import re
import resource
import selectors
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SPACE_BYTES = 4 << 30  # of addresses for a worker, beyond those that loading torch has taken
PATIENCE_SECONDS = 30.0  # for one call that should take milliseconds

# What torch itself answers to a raw call before any operator of ours is entered.
OF_TORCH = re.compile(
    r"mxdeconv::\w+\(\) |Could not run 'mxdeconv::|Overflow when unpacking long|"
    r"Unable to cast Python instance|ZeroTensors are immutable|"
    r".*SymInt\w* expected to contain only concrete integers"
)
# An allocation that this machine could serve, and the worker's limit does not.
OUT_OF_SPACE = re.compile(r"can't allocate memory: you tried to allocate (\d+) bytes")


class Failure(NamedTuple):
    number: int
    text: str
    outcome: str


class Report(NamedTuple):
    outcomes: collections.Counter[str]
    failures: list[Failure]


def judge(raw: bool, error: BaseException | None) -> tuple[bool, str]:
    """Whether a call may end so, and the name of that end."""
    from hostile_calls import Entered, Evil

    if not Entered.now and error is not None:
        return True, "arguments that torch does not build"
    if error is None:
        return True, "result"
    name = type(error).__name__
    if isinstance(error, (ValueError, TypeError)):
        return True, name
    if isinstance(error, Evil):
        return True, "the argument's own exception"
    space = OUT_OF_SPACE.search(str(error))
    if space is not None:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(space[1]) <= physical, "more than the worker's address space"
    if raw and isinstance(error, RuntimeError) and OF_TORCH.match(str(error)):
        return True, "RuntimeError of torch's schema"
    return False, f"{name}: {str(error)[:300]}"


def run_call(text: str) -> tuple[bool, str]:
    from hostile_calls import NAMESPACE, Entered

    Entered.now = False
    error: BaseException | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            eval(text, dict(NAMESPACE))
    except Exception as raised:
        error = raised
    return judge("ops.mxdeconv" in text, error)


def work(seed: int, numbers: Sequence[int]) -> None:
    """The worker: a line for each call begun and one for its end."""
    from hostile_calls import call_text

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + SPACE_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        good, outcome = run_call(call_text(seed, number))
        print(f"{number} {'good' if good else 'bad'} {outcome!r}", flush=True)


def answers(seed: int, begin: int, end: int) -> Iterator[tuple[int, bool, str]]:
    """(number, good, outcome) of calls [begin, end); a worker that dies or hangs is replaced."""
    while begin < end:
        arguments = ["--worker", "--seed", str(seed), "--begin", str(begin), "--calls", str(end)]
        worker = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, bufsize=0
        )
        assert worker.stdout is not None
        died = "the process died"
        pending = b""
        with selectors.DefaultSelector() as selector:
            selector.register(worker.stdout, selectors.EVENT_READ)
            while begin < end:
                if not selector.select(PATIENCE_SECONDS):
                    died = f"no answer in {PATIENCE_SECONDS:.0f} s"
                    break
                read = os.read(worker.stdout.fileno(), 1 << 16)
                if not read:
                    break
                *lines, pending = (pending + read).split(b"\n")
                for line in lines:
                    number, word, outcome = line.decode().split(" ", 2)
                    assert int(number) == begin, line
                    yield begin, word == "good", ast.literal_eval(outcome)
                    begin += 1
        worker.kill()
        code = worker.wait()
        if begin < end:
            yield begin, False, f"{died} (status {code})"
            begin += 1


def run(calls: int, seed: int) -> Report:
    from hostile_calls import call_text

    report = Report(collections.Counter(), [])
    for number, good, outcome in answers(seed, 0, calls):
        report.outcomes[outcome if good else "FAILURE"] += 1
        if not good:
            report.failures.append(Failure(number, call_text(seed, number), outcome))
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description="Hostile calls of every public face.")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this call alone, here, and show it")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--begin", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.seed, range(given.begin, given.calls))
        return 0
    if given.only is not None:
        from hostile_calls import call_text

        faulthandler.enable()
        text = call_text(given.seed, given.only)
        print(text, flush=True)
        good, outcome = run_call(text)
        print(outcome)
        return 0 if good else 1
    report = run(given.calls, given.seed)
    for outcome, count in report.outcomes.most_common():
        print(f"{count:7} {outcome}")
    for failure in report.failures:
        print(f"\ncall {failure.number}: {failure.text}\n  {failure.outcome}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
