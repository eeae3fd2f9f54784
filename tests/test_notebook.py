"""The notebook of the examples runs from its first cell to its last, offline, and what it shows is kept small."""

import shutil
from pathlib import Path

import pytest


FOLDER = Path(__file__).parents[1] / "examples"
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


def text_of(cell: dict) -> str:
    """What a cell printed."""
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch) -> None:
    """The fine-tuning has one epoch here, in the place of the twelve that the notebook has."""
    for file in FOLDER.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    notebook = nbformat.read(tmp_path / "tour.ipynb", 4)
    [training] = [cell for cell in notebook.cells if "epochs = 12" in cell.source]
    training.source = training.source.replace("epochs = 12", "epochs = 1").replace("steps 24", "steps 6")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    printed = [text_of(cell) for cell in notebook.cells]
    assert "a baby cries" in "".join(printed)
    assert "best loss after epoch 1" in text_of(training)
    assert (tmp_path / "runs" / "tour" / "compared" / "index.html").is_file()


def test_what_it_shows_is_kept_and_small() -> None:
    notebook = nbformat.read(FOLDER / "tour.ipynb", 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # run once, from top to bottom
    assert (FOLDER / "tour.ipynb").stat().st_size < 400_000
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    # A warning names folders of the machine that it was run on.
    assert not any(output.get("name") == "stderr" for cell in code for output in cell.outputs)
