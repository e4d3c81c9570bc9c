"""The dry run: what a study would run, how large the models are, and what it may cost."""

from collections.abc import Sequence

from modeling_slam.study.cost import Estimate, estimate
from modeling_slam.study.grid import Study

HEADER = ("run", "encoder M", "less %", "projector M", "LoRA M", "total M", "TFLOP", "hours", "MB")


def describe(study: Study) -> str:
    """A table of all runs, and the sums."""
    estimates = [estimate(run) for run in study.runs]
    rows = [
        row(run.spec.name, cost, study.teraflops) for run, cost in zip(study.runs, estimates, strict=True)
    ]
    return "\n".join([*aligned([HEADER, *rows]), "", *sums(study, estimates)])


def row(name: str, cost: Estimate, teraflops: float | None) -> tuple[str, ...]:
    counts = cost.counts
    return (
        name,
        millions(counts.encoder),
        f"{100 * counts.reduction:.1f}",
        millions(counts.projector),
        millions(counts.lora),
        millions(counts.total),
        number(None if cost.flops is None else cost.flops / 1e12),
        number(cost.hours(teraflops)),
        f"{(cost.model_bytes + cost.result_bytes) / 1e6:.0f}",
    )


def sums(study: Study, estimates: Sequence[Estimate]) -> list[str]:
    flops = [cost.flops for cost in estimates if cost.flops is not None]
    known = "" if len(flops) == len(estimates) else f" of the {len(flops)} runs whose data has a `size`"
    lines = [
        f"{study.name}: {len(study.runs)} runs, {len(study.baselines)} baselines of Whisper's own decoder.",
        f"Computation{known}: {sum(flops) / 1e15:,.3g} PFLOP.",
    ]
    if study.teraflops is not None:
        spent = sum(cost.hours(study.teraflops) or 0.0 for cost in estimates)
        lines.append(
            f"Device hours{known}: {number(spent)} at {study.teraflops} TFLOP/s sustained (`teraflops`)."
        )
    models, results = (
        sum(getattr(cost, name) for cost in estimates) / 1e9 for name in ("model_bytes", "result_bytes")
    )
    lines.append(f"Disk: {results:.2f} GB of results, {models:.1f} GB of models unless --keep_models false.")
    lines.append("How this is estimated: modeling_slam/study/cost.py. Baselines are not counted.")
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width; the first one to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in rows
    ]


def millions(parameters: int) -> str:
    return f"{parameters / 1e6:.2f}"


def number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.2f}" if value < 10 else f"{value:,.0f}"
