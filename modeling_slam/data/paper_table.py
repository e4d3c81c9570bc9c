"""The paper's data, to compare a Common Voice split with: clips and hours of its Table 1.

The authors used release 22 after keeping clips of 0.5-30 s, and 100 hours of English. Another release or
another filter gives other figures; the report shows the difference so that nobody mistakes one for the other.

Source: arXiv:2603.27981, Table 1
"""

SOURCE = "arXiv:2603.27981, Table 1"
# (language, Common Voice split): (clips, hours)
TABLE_1 = {
    ("da", "train"): (3592, 4.18),
    ("da", "dev"): (2511, 3.21),
    ("da", "test"): (2684, 3.45),
    ("nl", "train"): (43458, 54.15),
    ("nl", "dev"): (12032, 16.03),
    ("nl", "test"): (12033, 16.38),
    ("en", "train"): (58140, 100.00),
    ("en", "dev"): (16398, 27.22),
    ("en", "test"): (16391, 27.02),
}


def compare_with_paper(
    language: str | None, split: str, clips: int, hours: float
) -> dict[str, str | int | float] | None:
    """The paper's figures for this split and ours minus theirs; None for a split the paper did not use."""
    if language is None or (language, split) not in TABLE_1:
        return None
    paper_clips, paper_hours = TABLE_1[language, split]
    return {
        "source": SOURCE,
        "clips": paper_clips,
        "hours": paper_hours,
        "clips_difference": clips - paper_clips,
        "hours_difference": hours - paper_hours,
    }
