"""What each chapter shows, of which commit its code is and how long it takes: below its title, and in one table.

Read when the book is built: from the records in the folders that a chapter's code names, from git, and from what
`python -m qmvae_study refresh` wrote into the chapter when it last stored its outputs.
"""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from qmvae_study.evidence.folder import REPOSITORY, RESULTS
from qmvae_study.evidence.provenance import git
from qmvae_study.evidence.records import Record, load_records, read_record
from qmvae_study.report import words

EXPERIMENTS = RESULTS / "neighbours"
COLUMNS = ("data", "shows", "code", "time")


def texts(chapter: nbformat.NotebookNode) -> set[str]:
    """The texts in a chapter's code; of a parameter that was given, the one given and not the chapter's own."""
    given, found = {}, set()
    for cell in chapter.cells:
        tree = ast.parse(cell.source if cell.cell_type == "code" else "")
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            given |= {each.targets[0].id: each.value for each in tree.body if isinstance(each, ast.Assign)}
        else:
            found |= _texts(ast.walk(tree))
    return found | _texts(given.values())


def _texts(parts: Iterable[ast.AST]) -> set[str]:
    values = ("results" if getattr(each, "id", "") == "RESULTS" else getattr(each, "value", None) for each in parts)
    return {value for value in values if isinstance(value, str) and 0 < len(value) < 200}


def evidence(chapter: nbformat.NotebookNode) -> tuple[list[Record], list[str]]:
    """The finished records of the folders and experiments that a chapter names, and folders of other measurements."""
    records, others = [], []
    for text in sorted(texts(chapter)):
        folder, experiment = REPOSITORY / text, EXPERIMENTS / f"{text}.json"
        if (folder / "runs").is_dir():
            records += load_records(folder / "runs", status="ok")
        elif experiment.parent == EXPERIMENTS and experiment.is_file():
            records.append(read_record(experiment))
        elif folder.parent == RESULTS and folder.is_dir():
            others.append(text)
    return records, others


def lengths(records: Iterable[Record]) -> list[str]:
    """Profiles, the longest first, each with its steps and the number of its seeds; or that it is an experiment."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: -record.steps):
        groups.setdefault(
            f"{record.profile}, {record.steps:,} steps" if record.steps else "its own experiment", []
        ).append(record)
    seeds = {text: len({record.get("seed") for record in group}) for text, group in groups.items()}
    return [text + (f", {words.count(seeds[text], 'seed')}" if seeds[text] > 1 else "") for text in groups]


@cache
def status(path: Path) -> tuple[str, ...]:
    """The columns for a chapter."""
    chapter = nbformat.read(path, as_version=4)
    if not any(cell.get("outputs") for cell in chapter.cells):
        return "", "stored without outputs", commit(path), ""
    records, others = evidence(chapter)
    kinds = sorted({record.data.kind for record in records})
    shown = "; ".join([*lengths(records), *others])
    seconds = chapter.metadata.get("qmvae", {}).get("seconds")
    return (
        " and ".join(kinds),
        shown or "computed on the page",
        commit(path),
        f"{seconds} s of a core" if seconds else "",
    )


def commit(path: Path) -> str:
    """The last commit that changed a chapter of the repository, and whether it has changed since."""
    name = f"notebooks/{path.name}"
    since = git(REPOSITORY, "status", "--porcelain", "--", name)
    return (git(REPOSITORY, "log", "-1", "--format=%h", "--", name) or "") + (", changed since" if since else "")


def add_line(app, document):
    """Below the title of a chapter."""
    name = app.env.docname
    if not name.startswith("notebooks/"):
        return
    said = zip(COLUMNS, status(Path(app.env.doc2path(name))), strict=True)
    text = "".join(f"{column}: {value} · " for column, value in said if value)
    source = nodes.reference("", ".ipynb", refuri=f"../_sources/{name}.ipynb")
    more = addnodes.pending_xref(
        "", nodes.inline("", "all chapters"), refdomain="std", reftype="doc", reftarget="/book/status", refdoc=name,
        refexplicit=True, refwarn=True,
    )  # fmt: skip
    title = document.next_node(nodes.title)
    line = nodes.paragraph("", text, source, nodes.Text(" · "), more, classes=["status"])
    title.parent.insert(title.parent.index(title) + 1, line)


class ChapterStatus(SphinxDirective):
    """The columns for all chapters as a table."""

    def run(self):
        """Markdown, as the page is written in."""
        rows = [("chapter", *COLUMNS, ""), ("---",) * (len(COLUMNS) + 2)]
        for name in sorted(each for each in self.env.found_docs if each.startswith("notebooks/")):
            own = f'<a href="../_sources/{name}.ipynb">.ipynb</a>'
            rows.append((f"[](/{name})", *status(Path(self.env.doc2path(name))), own))
        return self.parse_text_to_nodes("\n".join(f"| {' | '.join(row)} |" for row in rows))


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-read", add_line)
    app.add_directive("chapter-status", ChapterStatus)
    return {"version": "1", "parallel_read_safe": True}
