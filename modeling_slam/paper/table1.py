"""The paper's data, to compare a Common Voice split with: clips and hours of its Table 1.

The authors used release 22 after keeping clips of 0.5-30 s, and 100 hours of English. Another release or
another filter gives other figures; the scripts show the difference so that nobody mistakes one for the other.

Source: arXiv:2603.27981, Table 1
"""

import csv
import functools
from importlib.resources import files

from modeling_slam.data import DataReport
from modeling_slam.data.sources import common_voice


@functools.cache
def table1() -> dict[tuple[str, str], tuple[int, float]]:
    """(language, Common Voice split) -> (clips, hours)"""
    with (files("modeling_slam.paper") / "tables" / "table1_data.csv").open(encoding="utf-8") as file:
        return {
            (row["language"], row["split"]): (int(row["clips"]), float(row["hours"]))
            for row in csv.DictReader(file)
        }


def beside_paper(report: DataReport) -> str:
    """The line below a split's summary that sets its figures beside the paper's.

    Empty for a split that the paper did not use.
    """
    if report.kind != common_voice.KIND or (report.language, report.split) not in table1():
        return ""
    clips, hours = table1()[report.language or "", report.split]
    return (
        f"\n  compared with the paper (arXiv:2603.27981, Table 1): {report.kept_clips:,} clips here, "
        f"{clips:,} there ({report.kept_clips - clips:+,}); {report.kept_hours:.2f} hours here, "
        f"{hours:.2f} there ({report.kept_hours - hours:+.2f})"
    )
