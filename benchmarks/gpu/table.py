"""`gpu.md`: the lines as tables, for a person; made anew after every run."""

from benchmarks.gpu.lines import Line, Lines
from modeling_slam.common.files import write_text

TRAINING = {
    "model": "model", "side": "side", "variant": "variant", "batch": "batch",
    "step_seconds": "seconds a step", "audio_seconds_per_second": "times real time",
    "epoch_minutes": "epoch of 54 h, minutes",
    "share_of_peak": "of matmul peak", "ours": "ours is faster by", "peak_gib": "peak GiB",
    "error": "error",
}  # fmt: skip
EVALUATION = {
    "model": "model", "side": "side", "variant": "variant", "batch": "batch", "beams": "beams",
    "seconds": "seconds", "times_real_time": "times real time", "ours": "ours is faster by",
    "peak_gib": "peak GiB", "error": "error",
}  # fmt: skip
FEATURES = {
    "where": "log-mel by",
    "batch": "batch",
    "seconds": "seconds",
    "times_real_time": "times real time",
}
RATES = ("audio_seconds_per_second", "times_real_time")


def write_table(lines: Lines) -> str:
    """Written beside the lines, and returned."""
    parts = [
        "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in lines.about.items()),
        checks_table(list(lines.lines.values())),
        *(
            f"{line['tera_operations']:.4g} · 10¹² operations a second in a product of large squares"
            for line in lines.lines.values()
            if "tera_operations" in line
        ),
        table("training", TRAINING, lines),
        table("evaluation", EVALUATION, lines),
        table("features", FEATURES, lines),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_text(lines.path.with_suffix(".md"), text)
    return text


def checks_table(lines: list[Line]) -> str:
    checks = [line for line in lines if line["part"] == "check"]
    if not checks:
        return ""
    verdicts = {True: "right", False: "WRONG", None: "not applicable"}
    skipped = ("case", "part", "name", "ok", "took_seconds")
    rows = [
        f"| {line['name']} | {'error' if 'error' in line else verdicts[line['ok']]} | "
        + "; ".join(
            f"{key.replace('_', ' ')} {shown(value)}" for key, value in line.items() if key not in skipped
        )
        + " |"
        for line in checks
    ]
    return "\n".join(["| check | verdict | numbers |", "| --- | --- | --- |", *rows])


def table(part: str, columns: dict[str, str], lines: Lines) -> str:
    found = [line | beside_ours(line, lines) for line in lines.lines.values() if line["part"] == part]
    if not found:
        return ""
    head = [f"| {' | '.join(columns.values())} |", f"|{' --- |' * len(columns)}"]
    rows = [f"| {' | '.join(shown(line.get(name)) for name in columns)} |" for line in found]
    return "\n".join([f"**{part.capitalize()}**\n", *head, *rows])


def beside_ours(line: Line, lines: Lines) -> Line:
    """`ours`: how many times faster ours is at this batch than this line of another side."""
    same = ("part", "model", "batch", "beams")
    for own in lines.lines.values():
        alike = all(line.get(name) == own.get(name) for name in same)
        if alike and own.get("side") == "ours" and not own.get("variant") and own is not line:
            rate = next((name for name in RATES if name in line and name in own), None)
            return {"ours": own[rate] / line[rate]} if rate else {}
    return {}


def shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
