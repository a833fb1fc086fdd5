"""The book as one PDF: every built page printed by the machine's own Chromium, in the order of the contents.

`python book/_ext/pdf.py HTML CONTENTS OUT`: the folder of built pages, the table of contents, and the file to write.
"""

import io
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml
from playwright.sync_api import Browser, Page, sync_playwright
from pypdf import PdfReader, PdfWriter

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Formulas that are not typeset when all that can be done is done.
TYPESET = """async () => {
    const formulas = [...document.querySelectorAll(".math")];
    if (!formulas.length) return [];
    const end = Date.now() + (document.querySelector("script[src*=mathjax]") ? 20000 : 0);
    while (!window.MathJax?.startup?.promise && Date.now() < end) await new Promise((go) => setTimeout(go, 20));
    await window.MathJax?.startup?.promise;
    const bad = (each) => !each.querySelector("mjx-container") || each.querySelector("[data-mml-node=merror]");
    return formulas.filter(bad).map((each) => each.textContent.slice(0, 60));
}"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which this machine, and no other, serves the folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a window. Raises RuntimeError where there is none."""
    if CHROMIUM is None:
        raise RuntimeError("there is no Chromium on this machine; Debian and Ubuntu have the package chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def contents(table: Path) -> list[tuple[str | None, list[str]]]:
    """(caption of a part, its pages) in order; the first page stands before the first caption."""
    toc = yaml.safe_load(table.read_text(encoding="utf-8"))
    return [(None, [toc["root"]])] + [
        (part["caption"], [each["file"] for each in part["chapters"]]) for part in toc["parts"]
    ]


def printed(page: Page, address: str) -> bytes:
    """One page of the book as a PDF on A4, in the light theme."""
    page.goto(address, wait_until="load")
    page.evaluate(TYPESET)
    return page.pdf(
        format="A4", margin=dict.fromkeys(("top", "bottom", "left", "right"), "18mm"), print_background=True
    )


def write_pdf(browser: Browser, html: Path, table: Path, out: Path, tell=print) -> None:
    """Print all pages of the contents into one file with an outline of parts and titles."""
    writer = PdfWriter()
    with served(html) as address:
        page = browser.new_page(color_scheme="light")
        for caption, names in contents(table):
            above = writer.add_outline_item(title=caption, page_number=len(writer.pages)) if caption else None
            for name in names:
                first = len(writer.pages)
                writer.append(PdfReader(io.BytesIO(printed(page, f"{address}{name}.html"))), import_outline=False)
                title = page.locator("article h1").first.inner_text().rstrip("#")
                writer.add_outline_item(title=title, page_number=first, parent=above)
                tell(f"{name}: {len(writer.pages) - first} pages")
    part = out.with_suffix(".part")
    writer.write(part)
    part.replace(out)


if __name__ == "__main__":
    with chromium() as found:
        write_pdf(found, *map(Path, sys.argv[1:4]))
