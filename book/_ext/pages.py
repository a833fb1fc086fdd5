"""What the theme and the other extensions leave to be desired, and the buttons that need the repository's address.

The repository's address is `repository: url` in _config.yml, or what `make book REPOSITORY=URL` says. With it chapters
have buttons for Binder and Colab, which open the commit LAUNCH, or else the branch `launch`, of that address. `make
launch` gives the chapters of that branch the cell that Colab needs, with the commit that they are of.
"""

import os
import sys
from pathlib import Path

import nbformat
from docutils import nodes

BRANCH = "launch"
CHINESE = "book/daodu"
FIRST_CELL = """import os
import subprocess
import sys

if "google.colab" in sys.modules and not os.path.exists("../requirements.lock"):  # elsewhere it is installed
    os.makedirs("qmvae", exist_ok=True)
    for command in ("init -q", "fetch -q --depth 1 {url} {commit}", "checkout -q FETCH_HEAD"):
        subprocess.run(["git", *command.split()], cwd="qmvae", check=True)
    os.chdir("qmvae/notebooks")
    # Beside Colab's packages, which its own kernel needs, and before them on the path, but behind Python's own modules:
    # the lock has a backport of one, which says that it is for older versions, because another package asks for it.
    how = "--quiet --no-deps --only-binary :all: --require-hashes --ignore-requires-python --target ../locked"
    command = [sys.executable, "-m", "pip", "install", *how.split(), "--requirement", "../requirements.lock"]
    subprocess.run(command, check=True)
    place = 1 + sys.path.index(os.path.dirname(os.__file__))
    sys.path[place:place] = [os.path.abspath(".."), os.path.abspath("../locked")]
"""


def add_launch_buttons(app, config):
    """Buttons for Binder and Colab, where the address of the repository is given."""
    if url := os.environ.get("QMVAE_REPOSITORY") or config.html_theme_options.get("repository_url"):
        config.html_theme_options |= {
            "repository_url": url,
            "repository_branch": os.environ.get("QMVAE_LAUNCH", BRANCH),
            "path_to_docs": ".",
            "use_repository_button": True,
            "launch_buttons": {
                "notebook_interface": "jupyterlab",
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
            },
        }


def write_launch_notebooks(url: str, commit: str, folder: Path) -> list[Path]:
    """Put a cell that installs a commit and its lock on Colab before the first cell of code of each notebook."""
    paths = sorted(folder.glob("[!.]*.ipynb"))
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        place = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
        cell = nbformat.v4.new_code_cell(FIRST_CELL.format(url=url, commit=commit), id="colab")
        notebook.cells.insert(place, cell)
        nbformat.write(notebook, path)
    return paths


def leave_out_thebe(app, config):
    """No live code in the page: its script is loaded from another server, and is declared twice."""
    for event, listeners in app.events.listeners.items():
        for listener in list(listeners):
            if listener.handler.__module__ == "sphinx_thebe" and event != "builder-inited":  # this one finds its style
                app.disconnect(listener.id)


def leave_out_drawn_icons(app, exception):
    """The theme has its icons in a font, and draws them again by a script that weighs more than the rest of a page."""
    if exception is None and app.builder.format == "html":
        (Path(app.outdir) / "_static" / "scripts" / "fontawesome.js").write_text("")


def mend_roles(app, pagename, templatename, context, doctree):
    """Sphinx gives the entries of a list of references a role that lists may no longer hold."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def name_the_language(app, pagename, templatename, context, doctree):
    """The page that is not in English says so, for readers who hear it and for the choice of glyphs."""
    if pagename == CHINESE and "body" in context:
        context["body"] = f'<div lang="zh">{context["body"]}</div>'


def number_figures(app, document):
    """Number the captions of a chapter's figures, "Figure 5.2", and make each a target: {ref}`figure-5-2`.

    A caption is the paragraph that follows a cell of code and begins in italics. Where a run is missing, the place of
    its picture is counted too, so that the others keep their numbers.
    """
    chapter = document.next_node(nodes.title).astext().split(" · ")[0]
    labels = app.env.get_domain("std")
    count = 0
    for cell in document.findall(lambda node: isinstance(node, nodes.container) and "cell" in node["classes"]):
        caption = cell.next_node(descend=False, siblings=True)
        if isinstance(caption, nodes.paragraph) and isinstance(caption[0], nodes.emphasis):
            count += 1
            name, title = f"figure-{chapter.lower()}-{count}", f"Figure {chapter}.{count}"
            caption["ids"].append(name)
            caption["classes"].append("numbered-caption")
            caption.insert(0, [nodes.strong("", title), nodes.Text(". ")])
            labels.labels[name] = (app.env.docname, name, title)
            labels.anonlabels[name] = (app.env.docname, name)


def setup(app):
    """Called by Sphinx."""
    app.connect("config-inited", add_launch_buttons)
    app.connect("config-inited", leave_out_thebe)
    app.connect("doctree-read", number_figures)
    app.connect("html-page-context", mend_roles)
    app.connect("html-page-context", name_the_language)
    app.connect("build-finished", leave_out_drawn_icons)
    return {"version": "1", "parallel_read_safe": True}


if __name__ == "__main__":
    for written in write_launch_notebooks(*sys.argv[1:3], Path(sys.argv[3])):
        print(written)
