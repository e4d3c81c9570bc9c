"""What was measured: a JSON file that a second run goes on with, and the one table made from it.

A row is one side of one comparison. `samples` has a number of seconds for every round; the rounds of all
rows of a comparison were made in turn, so ratios are taken round by round.
"""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeling_slam.common.differences import differences
from modeling_slam.common.files import write_json, write_text

Row = dict[str, Any]

OURS = "ours"
HEADER = (
    "part", "setting", "side", "batch", "seconds", "range", "real-time factor", "of matmul peak",
    "peak extra MiB", "time / ours", "output",
)  # fmt: skip


class Results:
    """The file `<directory>/benchmark.json`, and `benchmark.md` beside it."""

    def __init__(self, directory: Path, about: Mapping[str, Any]):
        """Raises ValueError if the file holds figures of other models, clips, code or settings."""
        self.path, self.about, self.rows = directory / "benchmark.json", dict(about), []
        if self.path.exists():
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if changed := differences(stored["about"], self.about):
                raise ValueError(
                    f"{self.path} holds figures made otherwise: {'; '.join(changed)}. "
                    "Give another `--out`, or delete that file to measure anew."
                )
            self.rows: list[Row] = stored["rows"]

    def row(self, **facts: Any) -> Row:
        """The row with this part, setting and side; a new one if there is none."""
        names = ("part", "setting", "side")
        for row in self.rows:
            if all(row[name] == facts[name] for name in names):
                return row
        self.rows.append({**facts, "samples": [], "matmul_peaks": []})
        return self.rows[-1]

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"about": self.about, "rows": self.rows})
        write_text(self.path.with_suffix(".md"), self.markdown())

    def markdown(self) -> str:
        lines = [HEADER, ["---"] * len(HEADER), *(self._cells(row) for row in self.rows if row["samples"])]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        facts = [
            f"{name.replace('_', ' ')} {value}" for name, value in self.about.items() if value is not None
        ]
        versions = {row["side"]: row.get("versions") for row in self.rows if row["side"] in (OURS, "before")}
        facts += [f"{side}: {found}" for side, found in versions.items()]
        return f"{table}\n\n{'; '.join(facts)}.\n"

    def _cells(self, row: Row) -> list[str]:
        figures = self.figures(row)
        memory = row.get("peak_extra_bytes")
        return [
            row["part"],
            row["setting"],
            row["side"],
            str(row["batch"] or ""),
            f"{figures['seconds']:.3g}",
            f"{figures['least']:.3g} to {figures['most']:.3g}",
            f"{figures['real_time_factor']:.3g}" if "real_time_factor" in figures else "",
            f"{figures['share_of_peak']:.0%}" if "share_of_peak" in figures else "",
            "" if memory is None else f"{memory / 2**20:.0f}",
            f"{figures['ratio_to_ours']:.2f}",
            row.get("output", ""),
        ]

    def figures(self, row: Row) -> dict[str, float]:
        """Seconds of a step, of an evaluation or of a load (median), and what follows from them."""
        samples = [seconds / row["steps"] for seconds in row["samples"]]
        ours = self.row(**{**row, "side": OURS})
        pairs = zip(row["samples"], ours["samples"], strict=True)
        found = {
            "seconds": statistics.median(samples),
            "least": min(samples),
            "most": max(samples),
            "ratio_to_ours": statistics.median(theirs / of_ours for theirs, of_ours in pairs),
        }
        if row["audio_seconds"]:
            found["real_time_factor"] = statistics.median(row["samples"]) / row["audio_seconds"]
        if row["needed_flop"] and ours["matmul_peaks"]:
            needed = row["needed_flop"] / max(ours["matmul_peaks"])
            found["share_of_peak"] = needed / statistics.median(row["samples"])
        return found
