"""Bar: one line on a terminal that says how far a long step is."""

from __future__ import annotations

import sys
import threading
import time

_WIDTH = 30


class Bar:
    """A line on stderr that is drawn anew while a step takes long, and removed when it is done.

        with Bar("reading") as bar:
            load_params(path, progress=bar.show)

    It has a bar, sizes and a rate where the step calls `show`, the seconds in any case. Steps that
    are done in `DELAY` seconds show nothing, nor does anything where stderr is not a terminal.
    """

    DELAY = 0.5
    INTERVAL = 0.2

    def __init__(self, title: str) -> None:
        self.title = title
        self.began = time.monotonic()
        self.done = self.total = 0
        self._ended = threading.Event()
        self._drawer: threading.Thread | None = None

    def show(self, done: int, total: int) -> None:
        """Bytes done and in all, for the next time that the line is drawn."""
        self.done, self.total = done, total

    def line(self, seconds: float) -> str:
        """What stands there after so many seconds."""
        parts = [self.title]
        if self.total:
            done = min(self.done, self.total)
            filled = "#" * (_WIDTH * done // self.total)
            parts.append(f"[{filled:<{_WIDTH}}] {show_bytes(done)} of {show_bytes(self.total)},")
            if seconds > 0 and done < self.total:
                parts.append(f"{show_bytes(int(done / seconds))}/s,")
        return " ".join([*parts, f"{seconds:.0f} s"])

    def __enter__(self) -> Bar:
        self.began = time.monotonic()
        if sys.stderr.isatty():
            self._drawer = threading.Thread(target=self._draw, daemon=True)
            self._drawer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._drawer is not None:
            self._drawer.join()

    def _draw(self) -> None:
        drawn, wait = False, self.DELAY
        while not self._ended.wait(wait):
            text = self.line(time.monotonic() - self.began)
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            drawn, wait = True, self.INTERVAL
        if drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def show_bytes(count: int) -> str:
    """A number of bytes for people: 5.9 KiB, 128.0 MiB."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count / 2**10:,.1f} KiB"
