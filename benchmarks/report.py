"""benchmarks/RESULTS.md and its plot, from what bench.py and overhead.py have measured.

    python benchmarks/bench.py --json r.jsonl
    python benchmarks/bench.py --channels-last --json r.jsonl
    python benchmarks/overhead.py --json r.jsonl
    python benchmarks/overhead.py --shapes 1000 --json r.jsonl
    python benchmarks/report.py r.jsonl [more.jsonl ...]

Where a figure was measured twice, the later one counts, beside what was measured with it. What lies
between the lines `<!-- by hand -->` and `<!-- end -->` of the RESULTS.md that is there is kept: the
words that no program can write. The plot wants matplotlib.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Series = tuple[str, bool, int, str]  # dtype, channels_last, threads, instruction set

HERE = Path(__file__).parent
PASSES = {"fwd": "forward", "dgrad": "data gradient", "wgrad": "weight gradient"}
COLORS = {"fwd": "#0b6e99", "dgrad": "#d1603d", "wgrad": "#6a994e"}
MARKERS = {"fwd": "o", "dgrad": "s", "wgrad": "^"}
BEGIN, END = "<!-- by hand -->", "<!-- end -->"
BY_HAND = f"""{BEGIN}
## What is not yet won, and why

Nothing has been written yet.
{END}"""


class Figures:
    """The rows of bench.py, by series, layer, pass and backend.

    Those of other backends remember what ours took beside them, in the same run.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows: dict[Series, dict[str, dict[str, dict[str, Row]]]] = {}
        for row in rows:
            series = (row["dtype"], row["channels_last"], row["threads"], row["isa"])
            layers = self.rows.setdefault(series, {})
            passes = layers.setdefault(row["layer"], {})
            sides = passes.setdefault(row["pass_name"], {})
            sides[row["backend"]] = {**row, "own_s": sides.get("mxdeconv", row)["median_s"]}

    def ratios(self, series: Series, pass_name: str, backend: str) -> dict[str, float]:
        """{layer: time of the backend over ours}."""
        found = {}
        for layer, passes in self.rows[series].items():
            sides = passes.get(pass_name, {})
            if "mxdeconv" in sides and backend in sides:
                found[layer] = sides[backend]["median_s"] / sides[backend]["own_s"]
        return found

    def each(self) -> Iterable[Row]:
        for layers in self.rows.values():
            for passes in layers.values():
                for sides in passes.values():
                    yield from sides.values()


def title(series: Series) -> str:
    dtype, channels_last, threads, isa = series
    layout = "channels_last" if channels_last else "channels first"
    return f"{dtype}, {layout}, {threads} thread{'' if threads == 1 else 's'}, {isa}"


def geomean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def table(header: list[str], rows: Iterable[list[str]], words: int = 1) -> str:
    """In Markdown; the first `words` columns to the left, the figures behind them to the right."""
    lines = [header, [*["---"] * words, *["--:"] * (len(header) - words)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mib(value: int | None) -> str:
    return "" if value is None else f"{value / 2**20:.1f}"


# Sections -------------------------------------------------------------------------------------


def span(values: list[float], unit: str) -> str:
    """The least and the greatest, or one figure where they agree."""
    if not values:
        return "not measured"
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def conditions(rows: list[Row]) -> str:
    """The machine, the versions, its limits and the commands."""

    def distinct(key: str) -> list[Any]:
        return list(dict.fromkeys(row[key] for row in rows if row.get(key) is not None))

    peaks = [
        f"{dtype} "
        + span(
            [
                row["peak"] / row["threads"] / 1e9
                for row in rows
                if row.get("dtype") == dtype and row["peak"]
            ],
            "GF/s",
        )
        for dtype in distinct("dtype")
    ]
    copy = span([value / 1e9 for value in distinct("copy")], "GB/s")
    lines = [
        f"- machine: {'; '.join(distinct('machine'))}, using {', '.join(distinct('isa'))}",
        f"- mxdeconv {', '.join(distinct('version'))}, torch {', '.join(distinct('torch'))}",
        f"- measured in the same runs, one core: FMA peak {', '.join(peaks)}; copy {copy}",
        "- commands:",
        *[f"    - `{command}`" for command in distinct("command")],
    ]
    return "\n".join(lines)


def summary(figures: Figures) -> str:
    """Geometric means, and how many layers lose."""
    rows = []
    for series in figures.rows:
        for backend in ("torch", "mxnet"):
            cells = []
            for pass_name in (*PASSES, "fwd+bwd"):
                ratios = figures.ratios(series, pass_name, backend)
                if not ratios:
                    cells.append("")
                    continue
                lost = sum(ratio < 1 for ratio in ratios.values())
                cells.append(f"**{geomean(ratios.values()):.2f}x** ({lost} of {len(ratios)} lost)")
            if any(cells):
                rows.append([f"{title(series)}, against {backend}", *cells])
    return table(["geometric mean", *PASSES.values(), "forward+backward"], rows)


def worst(figures: Figures, count: int) -> str:
    found = []
    for series in figures.rows:
        for pass_name in PASSES:
            for layer, ratio in figures.ratios(series, pass_name, "torch").items():
                sides = figures.rows[series][layer][pass_name]
                found.append((ratio, title(series), layer, pass_name, sides["mxdeconv"]))
    rows = [
        [
            *(layer, PASSES[pass_name], where, f"{ratio:.2f}x"),
            *(f"{own['gflops']:.1f}", f"{own['spread_s'] / own['median_s']:.0%}"),
        ]
        for ratio, where, layer, pass_name, own in sorted(found, key=lambda row: row[0])[:count]
    ]
    return table(["layer", "pass", "series", "torch's time over ours", "GF/s", "spread"], rows, 3)


def layers(figures: Figures, series: Series) -> str:
    has_mxnet = any(
        "mxnet" in sides for ps in figures.rows[series].values() for sides in ps.values()
    )
    header = ["layer", "pass", "GF/s", "of peak", "of copy", "spread", "against torch"]
    rows = []
    for layer, passes in figures.rows[series].items():
        for pass_name, sides in passes.items():
            if "mxdeconv" not in sides:
                continue
            own = sides["mxdeconv"]
            cells = [
                layer if pass_name == next(iter(passes)) else "",
                PASSES.get(pass_name, "forward+backward"),
                f"{own['gflops']:.1f}",
                "" if own["peak_share"] is None else f"{own['peak_share']:.0%}",
                f"{own['copy_share']:.0%}",
                f"{own['spread_s'] / own['median_s']:.0%}",
            ]
            for backend in ("torch", "mxnet") if has_mxnet else ("torch",):
                ratio = figures.ratios(series, pass_name, backend).get(layer)
                cells.append("" if ratio is None else f"{ratio:.2f}x")
            rows.append(cells)
    return table([*header, "against MXNet"] if has_mxnet else header, rows, 2)


def memory(figures: Figures, series: Series) -> str | None:
    rows = []
    for layer, passes in figures.rows[series].items():
        cells = []
        for pass_name in PASSES:
            sides = passes.get(pass_name, {})
            held = [sides.get(side, {}).get("temporaries") for side in ("mxdeconv", "torch")]
            cells.append("" if None in held else " / ".join(map(mib, held)))
        if any(cells):
            rows.append([layer, *cells])
    return table(["mxdeconv / torch, MiB", *PASSES.values()], rows) if rows else None


def overhead(rows: list[Row]) -> str:
    latest = {(row["layer"], row["way"], row["mode"]): row for row in rows}
    return table(
        ["layer", "way in", "mode", "mxdeconv, us", "torch, us", "torch's time over ours"],
        [
            [
                *key,
                f"{row['mxdeconv_s'] * 1e6:.1f}",
                f"{row['torch_s'] * 1e6:.1f}",
                f"{row['ratio']:.2f}x",
            ]
            for key, row in latest.items()
        ],
        3,
    )


# The whole ------------------------------------------------------------------------------------


def by_hand(path: Path) -> str:
    """The hand-written section of the report that is there."""
    if not path.exists():
        return BY_HAND
    text = path.read_text()
    first, last = text.find(BEGIN), text.find(END)
    return text[first : last + len(END)] if 0 <= first < last else BY_HAND


def report(rows: list[Row], plot_name: str, own_words: str) -> str:
    figures = Figures(row for row in rows if not row.get("overhead"))
    parts = [
        "# Results",
        "Written by `report.py` from the JSON lines of `bench.py` and `overhead.py`, which say how "
        "they measure. Ratios above 1 mean that mxdeconv is faster; both sides ran interleaved in "
        "one process. GF/s count two for each multiply-add of the direct sum.",
        conditions(rows),
        "## Summary",
        summary(figures),
        f"![Speed-up over torch per layer and pass]({plot_name})",
        own_words,
        "## Worst layers",
        worst(figures, 12),
    ]
    small = [row for row in rows if row.get("overhead")]
    if small:
        parts += [
            "## Small calls and many shapes",
            "Medians of CPU time per call, one thread; `overhead.py` says what is called.",
            overhead(small),
        ]
    for series in figures.rows:
        held = memory(figures, series)
        parts += [f"## {title(series)}", layers(figures, series)]
        if held:
            parts += [
                "Peak of the temporary memory of a call, beyond operands and result (within about "
                "0.3 MiB; `memory.py` says how it is measured):",
                held,
            ]
    return "\n\n".join(parts) + "\n"


def draw(figures: Figures, path: Path) -> None:
    """Torch's time over ours, a line for each layer, a mark for each pass, a panel a layout."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    isa = next(iter(figures.rows))[3]
    series = [s for s in figures.rows if s[0] == "float32" and s[2:] == (1, isa)][:2]
    series = series or list(figures.rows)[:1]
    names = list(dict.fromkeys(layer for s in series for layer in figures.rows[s]))
    height = 1.6 + 0.24 * len(names)
    figure, axes = plt.subplots(
        1, len(series), figsize=(1.5 + 4.6 * len(series), height), sharey=True, squeeze=False
    )
    seen: list[float] = [1.0]
    for axis, s in zip(axes[0], series, strict=True):
        for place in range(len(names)):
            axis.axhline(place, color="#e4e4e4", linewidth=0.8, zorder=0)
        axis.axvline(1, color="#444444", linewidth=1, zorder=1)
        for shift, (pass_name, label) in zip((-0.2, 0, 0.2), PASSES.items(), strict=True):
            ratios = figures.ratios(s, pass_name, "torch")
            if not ratios:
                continue
            seen += ratios.values()
            axis.plot(
                list(ratios.values()),
                [names.index(layer) + shift for layer in ratios],
                *(MARKERS[pass_name],),
                color=COLORS[pass_name],
                markersize=5.5,
                alpha=0.9,
                label=f"{label}, geometric mean {geomean(ratios.values()):.2f}x",
            )
        axis.set_title(title(s), fontsize=10)
        axis.set_xlabel(
            "torch's time over mxdeconv's  (right of 1: mxdeconv is faster)", fontsize=9
        )
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.03), fontsize=8, frameon=False)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.tick_params(axis="y", length=0, labelsize=8.5)
    low, high = min(seen) / 1.15, max(seen) * 1.15
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low <= t <= high]
    for axis in axes[0]:
        axis.set_xscale("log")
        axis.set_xlim(low, high)
        axis.set_xticks(ticks, [f"{t:g}x" for t in ticks])
        axis.minorticks_off()
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].set_ylim(len(names) - 0.4, -0.6)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def read(paths: list[str]) -> list[Row]:
    rows = []
    for path in paths:
        with open(path) as file:
            rows += [json.loads(line) for line in file if line.strip()]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="+", help="JSON lines of bench.py and overhead.py")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    parser.add_argument("--plot", type=Path, help="default: results.svg beside the report")
    args = parser.parse_args()
    rows = read(args.files)
    figures = Figures(row for row in rows if not row.get("overhead"))
    if not figures.rows:
        print("files must hold results of bench.py, got none", file=sys.stderr)
        return 2
    plot = args.plot or args.out.with_name("results.svg")
    args.out.write_text(report(rows, plot.name, by_hand(args.out)))
    try:
        draw(figures, plot)
    except ImportError:
        print("no plot: pip install matplotlib", file=sys.stderr)
        return 1
    print(f"wrote {args.out} and {plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
