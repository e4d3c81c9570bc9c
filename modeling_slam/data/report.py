"""The data report: what was read, what was kept, and every clip that was dropped, with the reason.

A number from an experiment means little without knowing which clips it is about. The report travels in
`metrics.json` and the model card, so everything in it is plain JSON.
"""

import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modeling_slam.common.files import write_json
from modeling_slam.model.audio_io import AudioError

OF_ROWS = ("bad row", "not UTF-8", "part of a recording")  # Reasons that lie in a table, not in a clip.
LISTED_IN_SUMMARY = 5  # Drops shown by name per reason; `to_dict` has them all.


@dataclass(frozen=True)
class Drop:
    """A clip that is not used. `detail` is for people, `reason` is one of few, and counted."""

    id: str
    reason: str
    detail: str


@dataclass
class DataReport:
    """What one split gave. Clips neither kept nor dropped were not needed, nor looked at.

    `parts` has a report on each dataset where several were read; all else is of all of them together. `note`
    says how the clips were come by where the dataset has no such split.
    """

    source: str
    kind: str
    split: str
    language: str | None
    read_clips: int = 0
    kept_clips: int = 0
    kept_seconds: float = 0.0
    dropped: list[Drop] = field(default_factory=list)
    subset: str | None = None
    note: str | None = None
    parts: list["DataReport"] = field(default_factory=list)

    @property
    def kept_hours(self) -> float:
        return self.kept_seconds / 3600

    @property
    def not_needed_clips(self) -> int:
        return self.read_clips - self.kept_clips - len(self.dropped)

    @property
    def unread_clips(self) -> int:
        """Number of clips that were dropped because of their audio files."""
        return sum(drop.reason in AudioError.REASONS for drop in self.dropped)

    @property
    def reasons(self) -> dict[str, int]:
        """Number of dropped clips by reason, the most frequent first."""
        return dict(Counter(drop.reason for drop in self.dropped).most_common())

    def take_back(self, drop: Drop, seconds: float) -> None:
        """Count a clip that was kept as dropped after all."""
        self.kept_clips -= 1
        self.kept_seconds -= seconds
        self.dropped.append(drop)

    def summary(self) -> str:
        """A few lines for the terminal."""
        lines = [
            f"{self.source} ({self.kind}), split {self.split}: kept {self.kept_clips:,} of "
            f"{self.read_clips:,} clips, {self.kept_hours:.2f} hours"
        ]
        if self.note:
            lines.append(f"  {self.note}")
        if self.subset:
            lines.append(f"  subset: {self.subset}; {self.not_needed_clips:,} clips were not needed")
        for reason, count in self.reasons.items():
            drops = [drop for drop in self.dropped if drop.reason == reason]
            ids = [drop.id for drop in drops]
            more = f" and {count - LISTED_IN_SUMMARY:,} more" if count > LISTED_IN_SUMMARY else ""
            lines.append(f"  dropped {count:,}, {reason}: {', '.join(ids[:LISTED_IN_SUMMARY])}{more}")
            if reason in OF_ROWS:  # what to do is not in their name
                lines.append(f"    the first: {drops[0].detail}")
        lines += [f"  {part.summary().splitlines()[0]}" for part in self.parts]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        fields = asdict(self)
        dropped = fields.pop("dropped")
        fields["parts"] = [part.to_dict() for part in self.parts]
        for part in fields["parts"]:
            del part["dropped"]  # they stand in the list of the whole
        if not self.parts:
            del fields["parts"]
        return {
            **fields,
            "kept_hours": self.kept_hours,
            "not_needed_clips": self.not_needed_clips,
            "dropped_clips": len(dropped),
            "reasons": self.reasons,
            "dropped": dropped,
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write the report as JSON; a reader finds the old file or the whole new one, never half of it."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.to_dict())
