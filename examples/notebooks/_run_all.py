"""Run the notebooks of this folder from their scripts, and keep what they show: `make notebooks`."""

from __future__ import annotations

import os
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

from neuroloaders.runs import atomic_write

FOLDER = Path(__file__).parent
# Of tqdm, where Jupyter has no widgets; notebooks show no bars.
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")

for script in sorted(FOLDER.glob("[!_]*.py")):
    print(f"== {script.name}", flush=True)
    notebook = jupytext.read(script)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same in every run, so that a difference is one
        cell.metadata.pop("execution", None)
    with atomic_write(script.with_suffix(".ipynb"), "w") as file:
        nbformat.write(notebook, file)
