"""Results as Markdown tables, for the terminal and for docs/performance.md."""

from collections.abc import Iterable, Sequence
from typing import Any

# Stages of a step, and which count of `flops.Needed` belongs to each.
STAGE_NEEDS = {
    "encoder": "encoder",
    "projector": "projector",
    "LLM, forward": "llm_forward",
    "LLM, backward": "llm_backward",
    "vocabulary and loss": "vocabulary",
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def settings_table(result: dict[str, Any], what: str) -> str:
    """Time, share of the limit and memory of each setting; ratios to ours."""
    header = [
        "setting", f"s per {what} (median)", "range", "clips/s", "real-time factor", "of the limit",
        "ratio to ours", "peak extra MiB", "of ours",
    ]  # fmt: skip
    ours = result["settings"]["ours"]
    rows = []
    for name, setting in result["settings"].items():
        seconds, extra = setting["seconds"], setting.get("peak_extra_bytes")
        rows.append(
            [
                name,
                f"{setting['median_seconds']:.3g}",
                f"{min(seconds):.3g} to {max(seconds):.3g}",
                f"{setting['clips_per_second']:.3g}",
                f"{setting['real_time_factor']:.3g}",
                f"{setting['share_of_limit']:.0%}",
                f"{setting['ratio_to_ours']:.2f}",
                "not measured" if extra is None else str(round(extra / 2**20)),
                "" if extra is None else f"{extra / ours['peak_extra_bytes']:.2f}",
            ]
        )
    limit = (
        f"Needed: {ours['needed_flop'] / 1e9:.0f} GFLOP; fastest matrix product "
        f"{ours['matmul_peak'] / 1e9:.0f} GFLOP/s; limit {ours['limit_seconds']:.2f} s."
    )
    if torchs := ours.get("torch_mm_peak"):
        share = ours["share_of_limit"] * ours["matmul_peak"] / torchs
        limit += f" By `torch.mm` alone {torchs / 1e9:.0f} GFLOP/s, and ours {share:.0%} of that limit."
    shares = [
        f"{name} {padding['tokens']:.0%} of tokens"
        for name, setting in result["settings"].items()
        if (padding := setting.get("padding")) and name in ("ours", "plain")
    ]
    if shares:
        limit += f" Padding in the batches, which ours does not compute: {', '.join(shares)}."
    return table(header, rows) + "\n\n" + limit


def stage_table(result: dict[str, Any]) -> str:
    """Stages of ours: seconds, share of the whole, and of the limit where a count belongs to the stage."""
    stages = result["stages"]
    seconds, needed = dict(stages["seconds"]), stages.get("needed_flop")
    if needed is None:
        return transcribing_table(result)
    merged = merge_stages(seconds)
    total = sum(merged.values())
    rows = []
    for stage, taken in merged.items():
        count = needed[STAGE_NEEDS[stage]] if stage in STAGE_NEEDS else None
        limit = None if count is None else count / stages["matmul_peak"]
        rows.append(
            [
                stage,
                f"{1000 * taken:.0f}",
                f"{taken / total:.0%}",
                "" if count is None else f"{count / 1e9:.1f}",
                "" if limit is None else f"{1000 * limit:.0f}",
                "" if limit is None else f"{limit / taken:.0%}",
            ]
        )
    alone = stages["linear_layers_alone"]
    note = (
        "The bare matrix products of the LLM's layers, at as many rows as the batch has tokens, take "
        f"{1000 * alone['forward']:.0f} ms forward and {1000 * alone['backward']:.0f} ms backward."
    )
    header = ["stage", "ms", "share", "GFLOP needed", "ms at the limit", "of the limit"]
    return table(header, rows) + "\n\n" + note


def merge_stages(seconds: dict[str, float]) -> dict[str, float]:
    """Forward and backward of the small parts together."""
    merged: dict[str, float] = {}
    for stage, taken in seconds.items():
        small = stage.startswith(("projector", "vocabulary"))
        name = stage.removesuffix(", forward").removesuffix(", backward") if small else stage
        merged[name] = merged.get(name, 0.0) + taken
    return merged


def transcribing_table(result: dict[str, Any]) -> str:
    """Stages of ours, and the time that is left if decoding is bound by reading the LLM's weights."""
    stages, ours = result["stages"], result["settings"]["ours"]
    beside = {name: taken for name, taken in stages["seconds"].items() if name.endswith("(in workers)")}
    total = sum(stages["seconds"].values()) - sum(beside.values())
    rows = []
    for name, taken in stages["seconds"].items():
        rows.append([name, f"{taken:.2f}", "beside" if name in beside else f"{taken / total:.0%}"])
    needed, peak = ours["needed_by_stage"], stages["matmul_peak"]
    decoding = max(needed["decode"] / peak, stages["read_seconds"])
    limit = sum(needed.values()) / peak - needed["decode"] / peak + decoding
    note = (
        f"{stages['steps']} decoding steps. Each reads the LLM's weights, "
        f"{stages['weight_bytes_per_step'] / 1e6:.0f} MB: {stages['read_seconds']:.2f} s in all at "
        f"{stages['read_bandwidth'] / 1e9:.1f} GB/s, as measured. With the rest at the matrix peak: "
        f"{limit:.2f} s, {limit / ours['median_seconds']:.0%} of the time taken."
    )
    return table(["stage", "s", "share"], rows) + "\n\n" + note


def loading_table(result: dict[str, Any]) -> str:
    header = [
        "load",
        "s",
        "and first look, s",
        "weights kept, MB",
        "from disk, MB",
        "peak memory, MB",
        "of weights kept",
    ]
    rows = [
        [
            name,
            f"{load['seconds']:.1f}",
            f"{load['seconds_of_the_look']:.1f}",
            f"{load['bytes_kept'] / 1e6:.0f}",
            f"{load['bytes_from_disk'] / 1e6:.0f}" if "bytes_from_disk" in load else "",
            f"{load['peak_bytes'] / 1e6:.0f}",
            f"{load['peak_ratio']:.2f}",
        ]
        for name, load in result["settings"].items()
    ]
    return table(header, rows)


def peer_table(result: dict[str, Any]) -> str:
    header = ["side", "median s", "range", "clips/s", "ratio to ours", "whole process, s", "peak MiB"]
    rows = [
        [
            side,
            f"{figures['median_seconds']:.3g}",
            f"{min(figures['seconds']):.3g} to {max(figures['seconds']):.3g}",
            f"{figures['clips_per_second']:.3g}",
            f"{figures['ratio_to_ours']:.2f}",
            f"{figures['process_seconds']:.3g}",
            f"{figures['peak_bytes'] / 2**20:.0f}",
        ]
        for side, figures in result["sides"].items()
    ]
    return table(header, rows) + f"\n\nCompared: {result['compared']}."
