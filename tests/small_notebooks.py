"""Notebooks of a few cells, for what runs notebooks; and chapters in this process, which is quicker than a kernel."""

from collections.abc import Mapping
from pathlib import Path

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import CapturedIO, capture_output
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from traitlets.config import Config

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def write(path: Path, *sources: str, parameters: str = "seeds = [0]") -> Path:
    """Write a notebook of these cells, before them one of parameters if there are some; returns its path."""
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    cells = [*([first] if parameters else []), *map(nbformat.v4.new_code_cell, sources)]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)
    return path


def run(notebook: Path, parameters: Mapping) -> CapturedIO:
    """Run a chapter's code with papermill's parameters; returns what it prints and shows."""
    shell = InteractiveShell.instance(config=Config(HistoryManager={"hist_file": ":memory:"}))
    try:
        with capture_output() as seen:
            for cell in parameterize_notebook(load_notebook_node(str(notebook)), parameters).cells:
                if cell.cell_type == "code":
                    shell.run_cell(cell.source, store_history=True).raise_error()
    finally:
        InteractiveShell.clear_instance()
    return seen
