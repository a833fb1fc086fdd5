"""Chapters as programs: executed by papermill with parameters, and what is stored of them."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from qmvae_core.stops import OutOfTime
from qmvae_study.evidence.folder import NOTEBOOKS, root_here

TRAINING_NOTEBOOK = NOTEBOOKS / "07_train.ipynb"
RESULTS_NOTEBOOKS = ("08_table1", "09_table2", "10_figure3", "11_figure4", "12_figure5", "13_verdicts")
# For processes that train on a CPU: PyTorch then asks the system for large pages of memory, where it has them.
MEMORY_SETTINGS = {"THP_MEM_ALLOC_ENABLE": "1"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

# Papermill, which ends at once when its standard input does: that is a pipe, and only the process that started it holds
# the other end. The kernel below sees within a second that papermill is gone, and ends too.
PAPERMILL = """\
import os, threading
from papermill.cli import papermill
threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
papermill()
"""


def check_parameters(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for a parameter that a notebook does not have; papermill itself only warns."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(unknown)}; the known ones are {sorted(known)}")


class Lifeline:
    """A pipe of which this process alone holds the one end: what runs on the other ends when that one is closed."""

    def __enter__(self) -> int:
        self.ends = os.pipe()
        return self.ends[0]

    def __exit__(self, *exception) -> None:
        for end in self.ends:
            os.close(end)


def execute(
    notebook: Path,
    output: Path,
    parameters: Mapping,
    log: Path | None = None,
    threads: int | None = None,
    lifeline: int | None = None,
) -> None:
    """Run a notebook by papermill, in a process of its own that does not outlive this one.

    Its output is shown as it comes, or added to the file `log`. A notebook may be its own output. threads: of its
    arithmetic; None: the system's choice. lifeline: of a `Lifeline`; None: one of its own.
    Raises ValueError for a parameter that the notebook does not have, before anything runs, OutOfTime if its training
    does, and RuntimeError if a cell fails; the executed notebook, with the traceback, is kept as `output`.
    """
    from papermill import inspect_notebook  # slow to import, and only the study needs it

    check_parameters(parameters, inspect_notebook(str(notebook)))
    output.parent.mkdir(parents=True, exist_ok=True)
    if output != notebook:  # or a process that dies early would be blamed for what ended the one before
        output.unlink(missing_ok=True)
    command = [
        sys.executable, "-c", PAPERMILL, str(notebook), str(output), "--cwd", str(notebook.parent),
        "--parameters_yaml", json.dumps(dict(parameters)), "--stdout-file", "-", "--no-progress-bar",
        "--log-level", "WARNING",
    ]  # fmt: skip
    environment = {**MEMORY_SETTINGS, **os.environ} | dict.fromkeys(THREADS if threads else (), str(threads))
    if root := root_here():  # in full, since the notebook runs in another folder
        environment["QMVAE_DATA_ROOT"] = root
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(log, "a", encoding="utf-8")) if log else None
        held = stack.enter_context(Lifeline()) if lifeline is None else lifeline
        done = subprocess.run(
            command, env=environment, stdin=held, stdout=file, stderr=subprocess.STDOUT if log else None
        )
    if done.returncode:
        name, text = _error_of(output)
        if name == OutOfTime.__name__:
            raise OutOfTime(text)
        raise RuntimeError(f"{notebook.name} failed{f' with {name}: {text}' if name else ''}; the cell is in {output}")


def _error_of(executed: Path) -> tuple[str, str]:
    """The name and the text of the error that ended a notebook's execution; both empty if there was none."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"] if executed.exists() else []
    errors = [each for cell in cells for each in cell.get("outputs", []) if each["output_type"] == "error"]
    return (errors[-1]["ename"], errors[-1]["evalue"]) if errors else ("", "")


def render(evidence: Path, notebooks: Path) -> None:
    """Execute the results notebooks of a copied book on an evidence folder, in place of the committed outputs."""
    for name in RESULTS_NOTEBOOKS:
        path = notebooks / f"{name}.ipynb"
        execute(path, path, {"evidence": str(evidence)})
        alternative_texts(path)


def stored() -> list[Path]:
    """The chapters that are committed with their outputs: all but the one that trains."""
    return [path for path in sorted(NOTEBOOKS.glob("[!.]*.ipynb")) if path != TRAINING_NOTEBOOK]


def refresh(chapters: Iterable[Path]) -> Iterator[tuple[str, bool]]:
    """Execute stored chapters anew, and write those whose outputs changed; yields names, and whether they were.

    A chapter runs in its own folder by this interpreter's kernel, as `make test` compares it. Raises RuntimeError, with
    the chapter's name, where a cell fails; that chapter stays as it was.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    for path in chapters:
        before = nbformat.read(path, as_version=4)
        content = copy.deepcopy(before)
        how = {"resources": {"metadata": {"path": str(path.parent)}}, "record_timing": False, "coalesce_streams": True}
        try:
            NotebookClient(content, kernel_name="python3", **how).execute()
        except CellExecutionError as error:
            raise RuntimeError(f"{path.name} failed with {error.ename}: {error.evalue}") from None
        content.metadata = before.metadata
        changed = [cell.get("outputs") for cell in content.cells] != [cell.get("outputs") for cell in before.cells]
        if changed:
            nbformat.write(content, path)
            alternative_texts(path)
        yield path.stem, changed


def alternative_texts(notebook: Path) -> None:
    """Copy the alternative text of each figure, its text/plain, to where the book's builder looks for it."""
    import nbformat  # as papermill, needed by the study alone

    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                cell.metadata["mystnb"] = {"image": {"alt": output["data"]["text/plain"]}}
    nbformat.write(content, notebook)
