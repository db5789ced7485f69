"""The notebook runs from top to bottom, and is stored without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.cases import needs_jit

TOUR = Path(__file__).parents[1] / "examples" / "tour.ipynb"


def test_the_notebook_is_stored_without_outputs():
    code = [cell for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.slow
@needs_jit("minutes of training as plain Python")
def test_the_notebook_runs_without_warnings_and_shows_its_pictures(tmp_path):
    notebook = nbformat.read(TOUR, as_version=4)
    strict = nbformat.v4.new_code_cell("import warnings\n\nwarnings.simplefilter('error')")
    notebook.cells.insert(0, strict)
    client = NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 3  # the world, a window, the learning curves
    assert kinds.count("image/gif") == 1
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
