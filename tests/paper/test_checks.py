"""The notes on the paper's numbers are what the checks compute."""

from pathlib import Path

from modeling_slam.paper.checks import lora_parameters, paper_checks
from modeling_slam.paper.notes import paper_notes


def test_lora_counts_are_those_of_peft():
    """36 layers of q and o (2048 x 2048) and k and v (2048 x 256)."""
    assert lora_parameters(8) == 36 * 8 * (2 * (2048 + 2048) + 2 * (2048 + 256)) == 3_686_400
    assert lora_parameters(16) == 7_372_800


def test_the_notes_are_what_the_checks_say():
    document = Path(__file__).parents[2] / "docs" / "paper-notes.md"
    assert document.read_text(encoding="utf-8") == paper_notes(), (
        "write it anew: python -m modeling_slam.paper.notes > docs/paper-notes.md"
    )
    assert len(paper_checks()) >= 20
