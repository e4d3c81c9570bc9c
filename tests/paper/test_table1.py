"""A split of Common Voice is set beside the paper's, and nothing else is."""

import pytest

from modeling_slam.data import DataReport
from modeling_slam.data.sources import common_voice
from modeling_slam.paper.table1 import beside_paper


def test_a_split_that_the_paper_used_is_set_beside_it():
    report = DataReport("release/nl", common_voice.KIND, "train", "nl", kept_clips=4, kept_seconds=3600.0)
    line = beside_paper(report)
    assert "arXiv:2603.27981, Table 1" in line
    assert "4 clips here, 43,458 there (-43,454); 1.00 hours here, 54.15 there (-53.15)" in line


@pytest.mark.parametrize(
    ("kind", "split", "language"),
    [(common_voice.KIND, "validated", "nl"), (common_voice.KIND, "train", "sv"), ("datasets", "train", "nl")],
)
def test_nothing_else_is(kind, split, language):
    assert beside_paper(DataReport("speech", kind, split, language, kept_clips=4)) == ""
