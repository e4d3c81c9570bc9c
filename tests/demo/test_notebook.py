"""The notebook: committed without outputs, and executed as a user would from its first cell to its last."""

import nbformat
import pytest
from nbclient import NotebookClient
from programs import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks" / "quickstart.ipynb"
MINUTES = 30  # on a machine that does much else; some three on two quiet cores


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_is_committed_as_ten_cells_without_outputs(notebook):
    nbformat.validate(notebook)
    assert len(code_cells(notebook)) == 10
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert NOTEBOOK.read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.nightly
def test_the_notebook_goes_from_recordings_to_a_model_card(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    client = NotebookClient(notebook, timeout=60 * MINUTES, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    (work,) = tmp_path.glob("slam-asr-*")
    shown = [output_text(cell) for cell in code_cells(notebook)]
    assert not any("error:" in text for text in shown)
    assert "**WER " in shown[5]
    assert "-->" in shown[7]
    assert sum(bool(path.read_text(encoding="utf-8").strip()) for path in work.glob("texts/*.txt")) == 6
    card = (work / "card.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "WER" in shown[9]
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook)) == 3


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def output_text(cell: nbformat.NotebookNode) -> str:
    """What a cell printed and showed."""
    parts = []
    for output in cell.outputs:
        data = output.get("data", {})
        parts.append(output.get("text", "") or data.get("text/markdown") or data.get("text/plain", ""))
    return "\n".join(parts)
