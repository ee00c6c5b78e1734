"""Write the tables and the plot of ``docs/kernels.md`` from the result files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "kernels.md"
PLOT = DOCS / "results" / "hybrid_attention.svg"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
GRADIENT_WAYS = "hybrid_attention_gradients.json"
RATES = {2: "R2", 4: "R4", 8: "R8", None: "linear"}
COLOURS = {2: "#8a5cd0", 4: "#3b6fd4", 8: "#1f9d8b", None: "#c7682b"}
TITLES = {"forward": "forward", "distillation": "forward + gradient of the maps", "backward": "full backward"}

Row = dict[str, Any]


def load(name: str) -> Row:
    """Read one result file."""
    found: Row = json.loads((DOCS / "results" / name).read_text())
    return found


def table(head: list[str], body: Iterable[list[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def source(result: Row, name: str) -> str:
    """Say where the numbers come from."""
    hardware, versions = result["hardware"], result["versions"]
    software = ", ".join(f"{key} {versions[key]}" for key in ("torch", "cudnn", "triton") if key in versions)
    return f"{hardware['device']}, {software}, {result['date'][:10]} (`docs/results/{name}`)."


def by_shape(rows: list[Row], name: str) -> dict[tuple[Any, ...], dict[Any, Row]]:
    """Group the rows of one pass by shape and implementation, then rate."""
    groups: dict[tuple[Any, ...], dict[Any, Row]] = {}
    for row in rows:
        if row["pass"] == name:
            key = (
                row["batch"],
                row["n"],
                row["heads"],
                row["head_dim"],
                row["dtype"],
                row["impl"],
                row["dense_ms"],
            )
            groups.setdefault(key, {})[row["rate"]] = row
    return groups


def ratio_table(rows: list[Row], name: str) -> str:
    """Tabulate dense time over hybrid time of one pass, the time in brackets."""
    body = []
    for (batch, tokens, heads, head_dim, dtype, impl, dense_ms), cells in by_shape(rows, name).items():
        shape = f"[{batch}, {tokens:,}, {heads}, {head_dim}] {dtype}"
        ratios = [
            f"{cells[rate]['ratio']:.2f}× ({cells[rate]['ms']:.2f})" if rate in cells else "–"
            for rate in RATES
        ]
        body.append([shape, impl, f"{dense_ms:.2f}", *ratios])
    return table(["shape, dtype", "impl", "dense ms", *(f"{r} (ms)" for r in RATES.values())], body)


def step_table(rows: list[Row]) -> str:
    """Tabulate a distillation step over the forward of the same implementation and shape."""
    names = ("batch", "n", "heads", "head_dim", "dtype", "impl")
    times = {(*(row[name] for name in names), row["rate"], row["pass"]): row["ms"] for row in rows}
    body = []
    for shape in dict.fromkeys(key[:6] for key in times if key[7] == "distillation"):
        cells = []
        for rate in RATES:
            step, forward = times.get((*shape, rate, "distillation")), times.get((*shape, rate, "forward"))
            cells.append(f"{step / forward:.2f}×" if step and forward else "–")
        body.append([f"{shape[1]:,} {shape[4]}", shape[5], *cells])
    return table(["tokens, dtype", "impl", *RATES.values()], body)


def plot(rows: list[Row]) -> str:
    """Draw forward ratios against tokens on doubly logarithmic axes, as SVG."""
    kept = [r for r in rows if r["pass"] == "forward" and r["impl"] == "triton" and r["head_dim"] == 128]
    kept = [r for r in kept if r["batch"] == 1 and r["dtype"] == "bf16"]
    width, height, left, bottom, top = 640, 360, 56, 44, 20
    tokens = sorted({r["n"] for r in kept})
    high = max(r["ratio"] for r in kept) * 1.1
    low = 0.9

    def x(n: float) -> float:
        return left + (width - left - 70) * math.log(n / tokens[0]) / math.log(tokens[-1] / tokens[0])

    def y(ratio: float) -> float:
        return top + (height - top - bottom) * (1 - math.log(ratio / low) / math.log(high / low))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    ]
    parts[0] += ' font-size="12" fill="#444"><rect width="100%" height="100%" fill="#fff"/>'
    for ratio in (1, 2, 4, 8, 16, 32):
        if ratio < high:
            parts.append(f'<path d="M{left} {y(ratio):.1f}H{width - 70}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 8}" y="{y(ratio) + 4:.1f}" text-anchor="end">{ratio}×</text>')
    for n in tokens:
        parts.append(f'<text x="{x(n):.1f}" y="{height - bottom + 18}" text-anchor="middle">{n:,}</text>')
    middle = (left + width - 70) / 2
    parts.append(f'<text x="{middle}" y="{height - 6}" text-anchor="middle">tokens</text>')
    for rate, label in RATES.items():
        points = sorted((r["n"], r["ratio"]) for r in kept if r["rate"] == rate)
        path = " ".join(f"{x(n):.1f},{y(ratio):.1f}" for n, ratio in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[rate]}" stroke-width="2"/>')
        for n, ratio in points:
            parts.append(f'<circle cx="{x(n):.1f}" cy="{y(ratio):.1f}" r="3" fill="{COLOURS[rate]}"/>')
        end_x, end_y = x(points[-1][0]) + 8, y(points[-1][1]) + 4
        parts.append(f'<text x="{end_x:.1f}" y="{end_y:.1f}" fill="{COLOURS[rate]}">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def memory_table(result: Row) -> str:
    """Tabulate peak memory beside the inputs, results included."""
    body = [
        [
            RATES[row["rate"]],
            *(f"{row[name]:.0f}" for name in ("query_mib", "forward_extra_mib", "backward_extra_mib")),
        ]
        for row in result["memory"]
    ]
    return table(["rate", "q, MiB", "forward adds, MiB", "backward adds, MiB"], body)


def plain_table(rows: list[Row], columns: dict[str, str]) -> str:
    """Tabulate chosen columns."""
    return table(list(columns.values()), [[str(row[name]) for name in columns] for row in rows])


def gradient_ways(result: Row) -> list[str]:
    """Tabulate the ways to a map's gradient, milliseconds."""
    names = {"one_pass": "one pass", "split_products": "split products", "distillation_R4": "step R4"}
    names |= {
        "distillation_R8": "step R8",
        "distillation_linear": "step linear",
        "backward_R8": "backward R8",
    }
    title = "### On a GPU: ways to a map's gradient, ms"
    return [title, source(result, GRADIENT_WAYS), plain_table(result["gradients"], names)]


def crossover_line(name: str) -> str:
    """Say from how many tokens each rate is faster than dense attention."""
    tokens = load(name)["crossover_tokens"]
    found = ", ".join(f"{rate}: {least:,}" for rate, least in tokens.items() if least)
    return f"Faster than dense from (tokens, sizes doubled from 256; `docs/results/{name}`): {found}."


def generated() -> str:
    """Write everything between the markers."""
    main = load("hybrid_attention.json")
    parts = [f"Measured on {source(main, 'hybrid_attention.json')} Ratios are dense time over hybrid time."]
    for name, title in TITLES.items():
        parts += [f"### On a GPU: {title}", ratio_table(main["rows"], name)]
    parts += ["### On a GPU: a distillation step over the forward alone", step_table(main["rows"])]
    parts += ["![forward ratio by tokens](results/hybrid_attention.svg)"]
    parts += ["### On a GPU: memory", memory_table(main)]
    parts += [crossover_line("hybrid_attention_crossover.json")]
    cpu = load("hybrid_attention_cpu.json")
    parts += ["### On a CPU, one thread", source(cpu, "hybrid_attention_cpu.json")]
    parts += [ratio_table(cpu["rows"], name) for name in TITLES if by_shape(cpu["rows"], name)]
    parts += [crossover_line("hybrid_attention_crossover_cpu.json")]
    if (DOCS / "results" / GRADIENT_WAYS).exists():
        parts += gradient_ways(load(GRADIENT_WAYS))
    names = {
        "n": "tokens",
        "impl": "impl",
        "query_stride": "query stride",
        "log_sum_exp_given": "log-sum-exp given",
    }
    names |= {"ms": "ms", "dense_ms": "dense ms", "times_dense": "times dense"}
    for name in ("attention_stats.json", "attention_stats_cpu.json"):
        stats = load(name)
        parts += [f"### Attention statistics: {stats['hardware']['device']}", source(stats, name)]
        parts += [plain_table(stats["rows"], names)]
    targets = load("hybrid_attention_targets.json")
    columns = {"capability": "target", "kernel": "kernel", "warps": "warps", "shared_kib": "shared KiB"}
    columns |= {"limit_kib": "of KiB", "registers": "registers", "stack_bytes": "spilled bytes a thread"}
    parts += ["### Other generations: compiled, not timed", plain_table(targets["rows"], columns)]
    return "\n\n".join(parts)


def main() -> None:
    """Rewrite the page between its markers, and the plot."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{generated()}\n\n{END}{after}")
    PLOT.write_text(plot(load("hybrid_attention.json")["rows"]))


if __name__ == "__main__":
    main()
