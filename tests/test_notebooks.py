"""Notebooks: the text source and the notebook agree, and the notebook runs."""

import pathlib
import sys

import pytest

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"
PAIRS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_notebook_and_text_source_agree(path):
    import jupytext

    cells = [
        [(cell.cell_type, cell.source) for cell in jupytext.read(file).cells]
        for file in (path, path.with_suffix(".py"))
    ]
    assert cells[0] == cells[1], f"run: jupytext --sync {path.relative_to(NOTEBOOKS.parent)}"


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_output_and_installs_without_a_jax_pin(path):
    import jupytext

    notebook = jupytext.read(path)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    source = "\n".join(cell.source for cell in notebook.cells)
    assert "colab-badge.svg" in source and path.name in source
    assert "jax==" not in source


def test_every_text_source_has_its_notebook():
    assert {p.stem for p in NOTEBOOKS.glob("*.py")} == {p.stem for p in PAIRS} != set()


def test_live_curves_are_one_picture_that_is_replaced():
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    code = """
import sys
sys.path.insert(0, "../")
from experiments.figures.live import LiveCurves
curves = LiveCurves("dense_topk_hash", every_s=0)
for step in (1, 2):
    curves("dense", 0, {"kind": "train", "tokens": step, "nats": 3.0})
    curves("dense", 0, {"kind": "eval", "tokens": step, "val_loss": 3.0})
    curves("dense", 0, {"kind": "step", "step": step})
"""
    notebook = new_notebook(cells=[new_code_cell(code)])
    NotebookClient(notebook, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    (output,) = notebook.cells[0].outputs
    assert "image/png" in output["data"]


@pytest.mark.slow
@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    import jupytext
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell

    notebook = jupytext.read(path)
    place = next(
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])
    )
    quick = f"STEPS, ARMS, WORKDIR = 6, ['dense', 'top1'], {str(tmp_path)!r}"
    notebook.cells.insert(place + 1, new_code_cell(quick))
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOKS)}})
    assert sys.prefix != sys.base_prefix, "the kernel must be that of the virtual environment"
    client.execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    texts = "".join(out.get("text", "") for out in outputs)
    assert len(pictures) >= 3  # the live curves and two figures
    assert "unigram entropy" in texts and (tmp_path / "report.html").exists()
