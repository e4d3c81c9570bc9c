"""The paper's findings hold in its own numbers, as often as it says."""

from modeling_slam.paper.findings import findings
from modeling_slam.paper.published import paper_results


def test_findings_of_the_paper_hold_in_its_own_numbers():
    answers = findings(paper_results()).set_index("finding")
    assert answers["holds"].tolist() == [9, 9, 7, 97, 12, 9, 9, 4]
    assert answers["of"].tolist() == [9, 9, 9, 102, 18, 9, 9, 9]
