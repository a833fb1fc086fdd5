"""Each chapter as plain JupyterLab shows it: no directive, role or formula is left raw, and no link leads nowhere.

One JupyterLab and one browser show all chapters, whole and without kernels, in less than a minute of a core. Extensions
that are not its own are off; with jupyterlab-myst, equations have running numbers, which are not the paper's. A label
behind a formula, "(eq-paper-08)", is text there, as is meant.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import nbformat
import pytest
from pdf import opened
from test_book import ROOT

pytestmark = pytest.mark.slow
CHAPTERS = sorted(path.name for path in (ROOT / "notebooks").glob("[!.]*.ipynb"))
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells off the screen too
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # which would ask the network
}
RAW = re.compile(r"\$|:label:|:::|\{[a-z][\w:.-]*\}")
BROKEN = r"""{doc}`02_elbo` and {cite:p}`key`; $\undefined$ and $\frac{$ break.

[A page](gone.ipynb), [another](02_elbo.ipynb).

```{note}
A note.
```

:::{tip}
A tip.
:::

$$ x
:label: eq
"""
# Opens a chapter, waits until all its Markdown is shown and no formula waits to be set, and tells what a reader sees.
SHOW = """async ([path, cells, seconds]) => {
    const widget = await jupyterapp.commands.execute("docmanager:open", { path, factory: "Notebook" });
    const all = (what) => [...widget.content.node.querySelectorAll(what)];
    const prose = () => all(".jp-RenderedMarkdown, .jp-RenderedHTML").map((each) => {
        const copy = each.cloneNode(true);
        copy.querySelectorAll("code, mjx-container").forEach((part) => part.remove());
        return copy.textContent;
    }).join(" ");
    const shown = () => all(".jp-MarkdownOutput").filter((each) => each.textContent.trim()).length;
    const end = Date.now() + 1000 * seconds;
    while ((shown() < cells || prose().includes("$")) && Date.now() < end)
        await new Promise((go) => setTimeout(go, 200));
    const found = {
        cells: shown(),
        prose: prose(),
        formulas: all("mjx-container").length,
        errors: all("mjx-merror, mjx-container [style*='red']").map((each) => each.outerHTML.slice(0, 80)),
        directives: all("code[class*='{']").map((each) => each.className),
        links: all(".jp-RenderedMarkdown a[href]").map((each) => each.href),
    };
    widget.dispose();
    return found;
}"""


@pytest.fixture(scope="module")
def shown(chromium, tmp_path_factory) -> dict[str, dict]:
    """What is seen of each chapter, and of a broken one."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(BROKEN)])
    nbformat.write(broken, folder / "notebooks" / "broken.ipynb")
    found = {}
    page = opened(chromium)
    page.route("**/api/sessions*", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    with jupyterlab(folder) as address:
        page.goto(address)
        page.wait_for_function("window.jupyterapp")
        page.evaluate("jupyterapp.restored")
        for name in [*CHAPTERS, "broken.ipynb"]:
            path = folder / "notebooks" / name
            cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
            patience = 120 if name in CHAPTERS else 5  # for what will not change
            found[name] = page.evaluate(SHOW, [f"notebooks/{name}", len(cells), patience])
            assert found[name]["cells"] == len(cells)
    return found


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """The address of a JupyterLab that shows a folder."""
    for name, content in SETTINGS.items():
        path = folder / "SETTINGS" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    page_config = folder / "CONFIG" / "labconfig" / "page_config.json"
    page_config.parent.mkdir(parents=True)
    page_config.write_text(json.dumps({"disabledExtensions": {"jupyterlab-myst": True}}))
    own = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / name) for name in ("SETTINGS", "WORKSPACES")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--no-browser --allow-root --port={port} --IdentityProvider.token= --expose-app-in-browser"
    command = [sys.executable, "-m", "jupyterlab", *options.split(), f"--ServerApp.root_dir={folder}"]
    with open(folder / "log", "w") as log, subprocess.Popen(command, env=os.environ | own, stderr=log) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/api", folder / "log")
            yield f"http://127.0.0.1:{port}/lab"
        finally:
            server.terminate()


def wait_for(address: str, log: Path) -> None:
    for _ in range(600):
        try:
            return urlopen(address).close()
        except URLError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab does not answer: {log.read_text()[-2000:]}")


def wrong(seen: dict) -> list[str]:
    """What a reader should not see of a chapter: raw markup, broken formulas, links to files that are not there."""
    paths = sorted({unquote(urlsplit(link).path) for link in seen["links"]})
    files = [path.removeprefix("/files/") for path in paths if path.startswith("/files/")]
    gone = [path for path in files if not (ROOT / path).is_file()]
    return [*RAW.findall(seen["prose"]), *seen["directives"], *seen["errors"], *gone]


def test_nothing_is_left_raw_and_no_link_leads_nowhere(shown):
    assert not {name: wrong(shown[name]) for name in CHAPTERS if wrong(shown[name])}
    assert sum(shown[name]["formulas"] for name in CHAPTERS) > 500
    assert all(len(shown[name]["links"]) for name in CHAPTERS)


def test_what_is_wrong_with_a_chapter_is_seen(shown):
    *raw, directive, error, gone = wrong(shown["broken.ipynb"])
    assert raw == ["{doc}", "{cite:p}", "$", "$", ":::", "{tip}", ":::", "$", "$", ":label:"]
    assert (directive, gone) == ("language-{note}", "notebooks/gone.ipynb")
    assert "red" in error
