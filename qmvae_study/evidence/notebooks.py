"""Chapters as programs: executed by papermill with parameters, and what is stored of them."""

from __future__ import annotations

import contextlib
import copy
import glob
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from qmvae_core.files import replacing
from qmvae_core.stops import OutOfTime
from qmvae_study.evidence.folder import NOTEBOOKS, default_evidence, remove_parts, root_here
from qmvae_study.evidence.interpreter import UNWRITTEN, kernel_manager, library_first
from qmvae_study.signals import STOPPED

TRAINING_NOTEBOOK = NOTEBOOKS / "07_train.ipynb"
RESULTS_NOTEBOOKS = ("08_table1", "09_table2", "10_figure3", "11_figure4", "12_figure5", "13_verdicts")
# For processes that train on a CPU: PyTorch then asks the system for large pages of memory, where it has them.
MEMORY_SETTINGS = {"THP_MEM_ALLOC_ENABLE": "1"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TERM, KILL = 15, 9  # signals, which Windows does not name
KILLED = (
    "its process was killed, as a system does that is out of memory: train fewer runs at once (--workers 1) or less "
    "beside them; the same command goes on from the last checkpoint"
)


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
    """Run a notebook by papermill and this interpreter, in a process of its own that does not outlive this one.

    Papermill ends at once when its standard input does: that is a pipe, and this process alone holds the other end.
    The kernel below sees within a second that papermill is gone, and ends too.

    Its output is shown as it comes, or added to the file `log`. A notebook may be its own output. threads: of its
    arithmetic; None: the system's choice. lifeline: of a `Lifeline`; None: one of its own.
    Raises ValueError for a parameter that the notebook does not have, before anything runs, OutOfTime if its training
    does or SIGTERM ended it, and RuntimeError if a cell fails, whose traceback is in the executed notebook `output`, if
    a process is killed, or if there is no room for the output.
    """
    from papermill import inspect_notebook  # slow to import, and only the study needs it

    check_parameters(parameters, inspect_notebook(str(notebook)))
    output.parent.mkdir(parents=True, exist_ok=True)
    if output != notebook:  # or a process that dies early would be blamed for what ended the one before
        output.unlink(missing_ok=True)
    remove_parts(output.parent, glob.escape(output.name))
    paths = str(notebook.absolute()), str(output.absolute())
    command = [sys.executable, "-m", f"{__package__}.interpreter", *paths, json.dumps(dict(parameters))]
    environment = {**MEMORY_SETTINGS, **os.environ} | dict.fromkeys(THREADS if threads else (), str(threads))
    if root := root_here():  # in full, since the notebook runs in another folder
        environment["QMVAE_DATA_ROOT"] = root
    environment["PYTHONPATH"] = library_first()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(log, "a", encoding="utf-8")) if log else None
        held = stack.enter_context(Lifeline()) if lifeline is None else lifeline
        done = subprocess.run(
            command, env=environment, stdin=held, stdout=file, stderr=subprocess.STDOUT if log else None
        )
    if done.returncode:
        raise _error(done.returncode, notebook, output)


def _error(status: int, notebook: Path, output: Path) -> RuntimeError:
    """What ended a notebook's execution with this exit status."""
    if status in (-TERM, 128 + TERM):
        return OutOfTime(f"{STOPPED}; the same command goes on from the last checkpoint")
    if status in (-KILL, 128 + KILL):
        return RuntimeError(f"{notebook.name} failed: {KILLED}")
    name, text = _error_of(output)
    if name == OutOfTime.__name__:
        return OutOfTime(text)
    if status == UNWRITTEN:
        free = shutil.disk_usage(output.parent).free
        text = f"{output.name} could not be written to {output.parent}, where {free:,} bytes are free"
        return RuntimeError(f"{text}; its cells said why above or in the log; make room and give the command again")
    return RuntimeError(f"{notebook.name} failed{f' with {name}: {text}' if name else ''}; the cell is in {output}")


def _error_of(executed: Path) -> tuple[str, str]:
    """The name and the text of the error that ended a notebook's execution; both empty if it holds none."""
    try:
        cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
        errors = [each for cell in cells for each in cell.get("outputs", []) if each["output_type"] == "error"]
    except (OSError, ValueError, KeyError):  # it is not there, or only a part of it is
        errors = []
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


def neighbours() -> Iterator[str]:
    """Carry out the experiments of the book's second part, one chapter after the other, into runs/neighbours."""
    for path in sorted(NOTEBOOKS.glob("B*.ipynb")):
        yield path.stem
        execute(path, default_evidence("neighbours") / path.name, {"profile": "quick"})


def refresh(chapters: Iterable[Path]) -> Iterator[tuple[str, bool]]:
    """Execute stored chapters anew, and write those whose outputs changed; yields names, and whether they were.

    What is written says in its metadata how many seconds of a core its kernel took, which other work on the machine
    hardly changes; a chapter that does not say so yet is written too. A chapter runs in its own folder by this
    interpreter, as `make test` compares it. Raises RuntimeError, with the chapter's name, where a cell fails; that
    chapter stays as it was.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    for path in chapters:
        before = nbformat.read(path, as_version=4)
        content = copy.deepcopy(before)
        how = {"resources": {"metadata": {"path": str(path.parent)}}, "record_timing": False, "coalesce_streams": True}
        spent = _of_children()
        try:
            NotebookClient(content, kernel_manager_class=kernel_manager(), **how).execute()
        except CellExecutionError as error:
            raise RuntimeError(f"{path.name} failed with {error.ename}: {error.evalue}") from None
        except DeadKernelError:
            raise RuntimeError(f"{path.name} failed: {KILLED}") from None
        content.metadata = before.metadata | {"qmvae": {"seconds": math.ceil(_of_children() - spent)}}
        outputs, stored_outputs = ([cell.get("outputs") for cell in book.cells] for book in (content, before))
        changed = outputs != stored_outputs or "qmvae" not in before.metadata
        if changed:
            _write(content, path)
            alternative_texts(path)
        yield path.stem, changed


def _of_children() -> float:
    """Seconds of a core that processes which this one started, and which have ended, took; 0 on Windows."""
    times = os.times()
    return times.children_user + times.children_system


def alternative_texts(notebook: Path) -> None:
    """Copy the alternative text of each figure, its text/plain, to where the book's builder looks for it."""
    import nbformat  # as papermill, needed by the study alone

    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                cell.metadata["mystnb"] = {"image": {"alt": output["data"]["text/plain"]}}
    _write(content, notebook)


def _write(content, path: Path) -> None:
    import nbformat

    with replacing(path) as part:
        nbformat.write(content, part)
