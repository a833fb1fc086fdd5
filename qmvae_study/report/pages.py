"""The door of the results chapters: what a chapter is given, by the parameters in its own cell of plain assignments.

Papermill replaces parameters by a cell of its own after that one; a name in it that the chapter does not have is an
error here, where papermill itself only warns.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from qmvae_core.names import BEST
from qmvae_study.evidence.folder import REPOSITORY, evidence_folder
from qmvae_study.evidence.notebooks import check_parameters
from qmvae_study.evidence.pictures import panel_images
from qmvae_study.evidence.records import Panel, Record, load_records
from qmvae_study.report import tables, words

WINGS = ("qmvae_core", "qmvae_study", "qmvae_neighbours")
ADDED = "# Parameters"  # how the cell begins that papermill adds


def given() -> set[str]:
    """The names in the cell that papermill added to the notebook that runs here; none where there is no such cell."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    cells = [cell for cell in shell.user_ns["In"] if cell.startswith(ADDED)] if shell else []
    assigned = (node for cell in cells for node in ast.parse(cell).body if isinstance(node, ast.Assign))
    return {target.id for node in assigned for target in node.targets}


# The type of a parameter, where that is not a text, and its name.
TYPES = {
    "seeds": (list, "a list of numbers"), "minutes": (int | float | None, "a number or None"),
    "data_root": (str | None, "a text or None"), "out": (str | Path | None, "a text or None"),
}  # fmt: skip


def check(parameters: Mapping[str, object]) -> None:
    """Raise ValueError where papermill gave this notebook a parameter that is none of these, or of another type.

    And RuntimeError in the folder of a checkout whose code is not the code that runs here.
    """
    _check_library()
    check_parameters(given(), parameters)
    for name, value in parameters.items():
        kind, words = TYPES.get(name, (str, "a text"))
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"parameter {name} must be {words}, not {value!r}")


def _check_library() -> None:
    """Papermill by hand and JupyterLab find a kernel by its name, and it may be another environment's."""
    here = next((each for each in (Path.cwd(), *Path.cwd().parents) if (each / "qmvae_study").is_dir()), REPOSITORY)
    if here != REPOSITORY and _code(here) != _code(REPOSITORY):
        raise RuntimeError(
            f"this kernel, of {sys.executable}, runs the library in {REPOSITORY}, which is not that of {here}; choose "
            f"the kernel of the environment that {here} has, as `make lab` and `python -m qmvae_study` do"
        )


def _code(root: Path) -> dict[str, bytes]:
    files = (path for wing in WINGS for path in (root / wing).rglob("[!.]*.py"))
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def load(evidence: str | Path, **wanted) -> list[Record]:
    """The records of the evidence folder that a parameter names, to which `own_up`; wanted: as of `load_records`."""
    records = load_records(evidence_folder(evidence) / "runs", **wanted)
    for record in records:
        own_up(record.profile, record.data.kind)
    return records


def own_up(profile: str, kind: str) -> None:
    """Let each picture of this process say so if what it shows is of a smoke run, or of data that are not real."""
    what = "smoke run" if profile.endswith("smoke") else "" if kind == "real" else f"{kind} data"
    if what:
        from qmvae_study.report import figures

        figures.Picture.note = f"{what}: shows that the code works, nothing else"


@dataclass(frozen=True)
class Page:
    """What a results chapter shows. folder: of the evidence. records: all that are there, failed ones too."""

    folder: Path
    records: list[Record]

    @cached_property
    def finished(self) -> list[Record]:
        """The finished records of every profile, the longest runs first (`tables.finished`)."""
        return tables.finished(self.records)

    @cached_property
    def shown(self) -> dict[str, Record]:
        """Name of a reading -> the record that pictures show of it (`tables.to_show`)."""
        return tables.to_show(self.records, BEST)

    def images(self, record: Record, kind: str, *ends: str) -> tuple[Panel, dict[str, np.ndarray]]:
        """A panel of a record and its images, as of `Record.panel` and `pictures.panel_images`."""
        panel = record.panel(kind, *ends)
        return panel, panel_images(panel, self.folder / "panels")

    def picture(self, record: Record, kind: str, source: str, target: str, title: str | None = None):
        """A panel of Figure 3 (kind "cross_generation") or Figure 4 ("transfer"), with the title of its record."""
        from qmvae_study.report import figures  # slow to import, and chapters of tables alone do without

        panel, images = self.images(record, kind, source, target)
        draw, more = (
            (figures.transfer, {}) if kind == "transfer" else (figures.cross_generation, {"draws_of": panel.draws_of})
        )
        images["images"] = images.pop("generated")
        title = title or tables.title(record, source, target)
        return draw(**images, readings=panel.read, digits=panel.digits, title=title, **more)

    def show(self, kind: str, name: str, source: str, target: str):
        """`picture` of the run that is shown by a name, or a sentence where there is none."""
        if name not in self.shown:
            return f"There is no record of {name}."
        return self.picture(self.shown[name], kind, source, target)

    def longest(self, names: Sequence[str]) -> dict[str, Record]:
        """Name of a row (`tables.row_name`) -> its longest run of the lowest seed, for those that have one."""
        found: dict[str, Record] = {}
        for record in self.finished:
            found.setdefault(tables.row_name(record.reading), record)
        return {name: found[name] for name in names if name in found}

    def composite(
        self, kind: str, runs: Mapping[str, Record], names: Sequence[str], ways: Sequence[str],
        rows: int = 10, columns: int | None = None,
    ):  # fmt: skip
        """Panels of several runs in one picture, as the paper's Figures 3 and 4: a row a direction, a column a model.

        kind: as of `picture`. runs: name of a reading -> its record. ways: directions such as "mnist->svhn". rows: how
        many of a panel's rows are shown. columns: of the picture, where they are not the models.
        """
        from qmvae_study.report import figures

        panels, right = [], []
        for way in ways:
            right.append(f"{words.direction(way)}:")
            for name in names:
                if name not in runs:
                    panels.append(f"{words.reading(name)}\nno run")
                    continue
                record = runs[name]
                panel, images = self.images(record, kind, *way.split("->"))
                wrong = np.asarray(panel.read) != np.asarray(panel.digits)
                share = f"{100 - 100 * wrong[:rows].mean():.0f} %"
                right.append(f"{words.reading(record.reading)} {share};")
                styles = images["styles"][:, :rows] if "styles" in images else None
                shown = images["conditions"], images["generated"][:rows], wrong[:rows]
                title = f"{tables.called([record])}\n{record.steps:,} steps\n{words.direction(way)}: {share} right"
                panels.append(figures.Panel(title, *shown, styles))
        alt = f"{len(panels)} panels of images, by how many are read rightly. {' '.join(right).rstrip(';')}."
        return figures.composite(panels, columns or len(names), alt)


def open(parameters: Mapping[str, object]) -> Page:
    """The page of a chapter. parameters: all that the chapter has, by name, with "evidence", its evidence folder.

    Raises ValueError for a parameter that the chapter does not have, and RecordError as `load_records`.
    """
    check(parameters)
    return Page(evidence_folder(parameters["evidence"]), load(parameters["evidence"]))
