"""2,000 hostile calls, and that the harness would see what it looks for."""

from __future__ import annotations

from pathlib import Path

import hostile
import hostile_calls
import pytest
from hostile import judge, run, run_call
from hostile_calls import FACES, Evil, call_text

CALLS = 2000


def test_no_call_kills_hangs_or_surprises() -> None:
    report = run(CALLS, seed=1)
    shown = "\n".join(f"{f.number}: {f.text[:1000]}\n  {f.outcome}" for f in report.failures)
    assert not report.failures, shown
    assert report.outcomes.total() == CALLS
    # Neither all refused nor all good: the calls reach deep enough to mean something.
    for outcome in ("result", "ValueError", "TypeError"):
        assert report.outcomes[outcome] >= CALLS // 20


def test_calls_come_from_the_seed() -> None:
    assert call_text(3, 5) == call_text(3, 5)
    texts = [call_text(0, number) for number in range(300)]
    assert len(set(texts)) > 290
    assert len(FACES) == 6
    for face in ("ops.mxdeconv.deconvolution_into", "mxdeconv.deconvolution", "mxdeconv.explain",
                 "Deconvolution.from_attrs", "gluon.Conv"):  # fmt: skip
        assert any(face in text for text in texts)


@pytest.mark.parametrize(
    ("raw", "error", "good"),
    [
        (False, None, True),
        (False, ValueError("x"), True),
        (False, TypeError("x"), True),
        (False, Evil("x"), True),
        (False, RuntimeError("mxdeconv::deconvolution() expected"), False),
        (True, RuntimeError("mxdeconv::deconvolution() expected"), True),
        (True, RuntimeError("INTERNAL ASSERT FAILED"), False),
        (True, MemoryError(), False),
        (True, RuntimeError("can't allocate memory: you tried to allocate 9 bytes."), True),
        (True, RuntimeError(f"can't allocate memory: you tried to allocate {2**60} bytes."), False),
        (False, RecursionError("x"), False),
    ],
)
def test_judge(raw: bool, error: BaseException | None, good: bool) -> None:
    hostile_calls.Entered.now = True
    assert judge(raw, error)[0] == good


def test_an_error_of_the_arguments_is_not_ours() -> None:
    assert run_call("call(len, torch.ones(2).expand(3))")[0]
    assert not run_call("call(torch.Tensor.expand, torch.ones(2), 3)")[0]


def test_death_and_silence_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Workers that crash at their third call and hang at their fifth: both are reported."""
    monkeypatch.setattr(hostile, "PATIENCE_SECONDS", 2.0)
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, sys, time\n"
        "begin, end = int(sys.argv[5]), int(sys.argv[7])\n"
        "for number in range(begin, end):\n"
        "    if number == 2: os.kill(os.getpid(), 11)\n"
        "    if number == 4: time.sleep(60)\n"
        "    print(number, 'good', repr('result'), flush=True)\n"
    )
    monkeypatch.setattr(hostile, "__file__", str(worker))
    ends = list(hostile.answers(0, 0, 7))
    assert [number for number, _, _ in ends] == list(range(7))
    assert [number for number, good, _ in ends if not good] == [2, 4]
    assert "died (status -11)" in ends[2][2]
    assert "no answer" in ends[4][2]
