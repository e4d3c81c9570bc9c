"""docs/performance.md and its pictures from the result files: no figure there is typed.

    python -m benchmarks.document

Between `<!-- begin NAME -->` and `<!-- end NAME -->` stands what `results/NAME.json` says; `curves` is of
several files. Everything else is text.
"""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot as plt

from benchmarks import curves, data_parallel, tables
from modeling_slam.evaluation.predictions import write_atomically

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks/results"
PAGE = REPOSITORY / "docs/performance.md"
IMAGES = REPOSITORY / "docs/images"
NOT_MEASURED = "*Not measured yet.*"
BLOCK = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def read(name: str) -> dict[str, Any] | None:
    """`None` where nothing has been measured yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def block(name: str) -> str:
    """What stands in the page under this name."""
    if name == "curves":
        return curve_slopes() if curve_files() else NOT_MEASURED
    result = read(name)
    if result is None:
        return NOT_MEASURED
    if name.startswith("training"):
        text = tables.settings_table(result, "step") + "\n\n" + tables.stage_table(result)
    elif name.startswith("evaluation"):
        text = tables.settings_table(result, "round") + "\n\n" + tables.stage_table(result)
    elif name.startswith("loading"):
        text = tables.loading_table(result)
    elif name.startswith("data_parallel"):
        text = data_parallel.table(result)
    elif name.startswith("peer"):
        text = tables.peer_table(result)
    else:
        raise SystemExit(f"error: {PAGE.name} has a block {name!r} that nothing is known of.")
    return text + "\n\n" + about(result)


def about(result: dict[str, Any]) -> str:
    """Where the figures come from."""
    machine = result["machine"]
    return (
        f"{result['encoder']}, {result['llm']}, {result['dataset']}; {machine['threads']} threads of "
        f"{machine['cpu']}, torch {machine['torch']}, transformers {machine['transformers']}, commit "
        f"{machine['commit']}; load before the run {machine['load_average_before']}."
    )


def curve_files() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("curve_*.json"))]


def curve_slopes() -> str:
    header = ["by", "ms, measured", "ms, expected", "ratio", "MiB, measured", "MiB, expected", "ratio"]
    rows = []
    for result in curve_files():
        slopes = result["slopes"]
        rows.append(
            [
                result["curve"],
                f"{1000 * slopes['seconds']:.3g}",
                f"{1000 * slopes['needed_seconds']:.3g}",
                f"{slopes['seconds'] / slopes['needed_seconds']:.2f}",
                f"{slopes['bytes'] / 2**20:.3g}",
                f"{slopes['needed_bytes'] / 2**20:.3g}",
                f"{slopes['bytes'] / slopes['needed_bytes']:.2f}",
            ]
        )
    picture = "![Time and memory of a training step](images/performance_curves.svg)"
    return f"{tables.table(header, rows)}\n\n{about(curve_files()[0])}\n\n{picture}"


def plot_curves(file: Path) -> None:
    """Time above, memory below; measured and expected."""
    results = curve_files()
    figure, axes = plt.subplots(
        2, len(results), figsize=(3 * len(results), 5), layout="constrained", squeeze=False
    )
    for (above, below), result in zip(axes.T, results, strict=True):
        x = result["x"]
        above.plot(x, result["seconds"], marker="o", label="measured")
        above.plot(x, result["needed_seconds"], ls="--", color="tab:gray", label="at the peak")
        for what, style in (
            ("peak_extra_bytes", {"marker": "o"}),
            ("kept_bytes", {"ls": "--", "color": "tab:gray"}),
        ):
            below.plot(x, [bytes_ / 2**30 for bytes_ in curves.total(result, what)], **style)
        below.set(xlabel=result["curve"], ylim=(0, None))
        above.set(ylim=(0, None))
    axes[0][0].set_ylabel("s per step")
    axes[1][0].set_ylabel("GiB, weights included")
    axes[0][0].legend()
    save(figure, file)


def plot_settings(result: dict[str, Any], file: Path) -> None:
    """Seconds of each stage of ours, projector only, beside its time at the peak."""
    stages = result["stages"]
    seconds = tables.merge_stages(stages["seconds"])
    limits = {
        stage: stages["needed_flop"][tables.STAGE_NEEDS[stage]] / stages["matmul_peak"]
        for stage in seconds
        if stage in tables.STAGE_NEEDS
    }
    figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
    names = list(seconds)
    axis.barh(names, [seconds[name] for name in names], color="tab:blue", label="measured")
    axis.barh(
        names, [limits.get(name, 0) for name in names], height=0.4, color="tab:gray", label="at the peak"
    )
    axis.invert_yaxis()
    axis.set(xlabel="s per step, projector only")
    axis.legend()
    save(figure, file)


def save(figure: Any, file: Path) -> None:
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    written = BLOCK.sub(lambda match: f"{match[1]}{block(match[2])}\n{match[3]}", text)
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "slam-asr"}  # small, and alike for alike results
    IMAGES.mkdir(exist_ok=True)
    if curve_files():
        plot_curves(IMAGES / "performance_curves.svg")
    if projector := read("training_projector"):
        plot_settings(projector, IMAGES / "performance_stages.svg")
    write_atomically(PAGE, written)


if __name__ == "__main__":
    main()
