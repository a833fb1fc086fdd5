"""The book as one PDF with a title page, contents and page numbers, printed by the machine's own Chromium.

`python book/_ext/pdf.py HTML CONTENTS OUT`: the folder of built pages, the table of contents, and the file to write.

All pages are put into one document and printed at once, so that Chromium numbers them and links lead inside the file.
Left out are the API, which is read beside the code, and the explorer, which needs a screen.
"""

import io
import json
import posixpath
import shutil
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page, sync_playwright
from pypdf import PdfReader, PdfWriter

from qmvae_core.files import replacing

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 300  # seconds until a browser counts as stuck, for machines that do much else
LEFT_OUT = ("book/api", "book/api_study", "book/api_neighbours", "book/explorer")
COVER = (".logo__title", ".component-author", "article p", ".copyright")  # of the first page
# Formulas that are not typeset when all that can be done is done.
TYPESET = """async () => {
    const formulas = [...document.querySelectorAll(".math")];
    if (!formulas.length) return [];
    const end = Date.now() + (document.querySelector("script[src*=mathjax]") ? 60000 : 0);
    while (!window.MathJax?.startup?.promise && Date.now() < end) await new Promise((go) => setTimeout(go, 20));
    await window.MathJax?.startup?.promise;
    const bad = (each) => !each.querySelector("mjx-container") || each.querySelector("[data-mml-node=merror]");
    return formulas.filter(bad).map((each) => each.textContent.slice(0, 60));
}"""
WIDTH = 658  # pixels of a page between its margins, as printed.css has them
# Makes what is wider than the page as much smaller as is needed, and gives what is too wide still.
NARROW = """() => {
    const edge = document.documentElement.clientWidth;
    const wide = (each) => each.getBoundingClientRect().right > edge + 1;
    for (const each of document.querySelectorAll("table, mjx-container, svg[viewBox]"))
        if (wide(each)) {
            const { left, width } = each.getBoundingClientRect();
            each.style.zoom = 0.98 * (edge - left) / Math.max(each.scrollWidth, width);  // sizes of letters are rounded
        }
    return [...document.querySelectorAll("article *:not(mjx-assistive-mml, mjx-assistive-mml *)")]
        .filter(wide).map((each) => each.textContent.slice(0, 60));
}"""
# The numbers of the contents are known when all is printed; then they are printed alone, to be laid over it.
NUMBERS_ALONE = """<style>
    html, body { background: none !important }
    section, nav { visibility: hidden }
    nav span { visibility: visible }
    @page { @bottom-center { content: none } }
</style>"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def copyfile(self, *args):
        with suppress(BrokenPipeError, ConnectionResetError):  # a browser leaves a page before all of it is there
            super().copyfile(*args)


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


def opened(browser: Browser, **options) -> Page:
    """A new page that waits as long as a busy machine needs. options: as of the browser's `new_page`."""
    page = browser.new_page(**options)
    page.set_default_timeout(1000 * PATIENCE)
    return page


def contents(table: Path) -> list[tuple[str | None, list[str]]]:
    """(caption of a part, its pages) in order; the first page stands before the first caption."""
    toc = yaml.safe_load(table.read_text(encoding="utf-8"))
    return [(None, [toc["root"]])] + [
        (part["caption"], [each["file"] for each in part["chapters"]]) for part in toc["parts"]
    ]


def anchor(name: str, place: str = "") -> str:
    """The id, in the one document, of a page of the book or of a place in it."""
    return f"{name}/{place}".replace("/", "-").rstrip("-")


def article(name: str, page: BeautifulSoup, among: Collection[str]) -> Tag:
    """A page's text, with ids of its own and links that lead inside the document, or out of it to the world."""
    text = page.select_one("article")
    for tag in text.select("script, .headerlink"):
        tag.decompose()
    for tag in text.find_all(id=True):
        tag["id"] = anchor(name, tag["id"])
    for tag in text.select("details:not(.hide), details:has(img)"):
        tag["open"] = ""
    for tag in text.find_all("img"):
        tag["src"] = urljoin(f"/{name}", tag["src"])
    for tag in text.find_all("a", href=True):
        link, place = urldefrag(tag["href"])
        target = posixpath.splitext(urljoin(f"/{name}.html", link))[0].lstrip("/")
        if target in among:
            tag["href"] = f"#{anchor(target, place)}"
        elif not urlsplit(link).scheme:
            del tag["href"]
    text["id"] = anchor(name)
    return text


def front(parts: list[tuple[str | None, list[str]]], texts: Mapping[str, Tag], cover: str, numbers=None) -> str:
    """The title page and the contents. numbers: name of a page of the book -> where it begins in the file."""
    lines = [f'<section class="cover">{cover}</section><nav><h1>Contents</h1>']
    for caption, names in parts:
        lines += [f"<h2>{escape(caption)}</h2>"] if caption else []
        for name in names:
            number = numbers[name] if numbers else ""
            lines.append(f'<a href="#{anchor(name)}">{texts[name].h1.decode_contents()}<span>{number}</span></a>')
    return "".join([*lines, "</nav>"])


def styles(page: BeautifulSoup, texts: Mapping[str, Tag]) -> str:
    """The looks of a page of the book and what typesets its formulas; each chapter has its title above its pages."""
    scripts = (tag for tag in page.head.find_all("script") if "mathjax" in f"{tag.get('src')}{tag.string}".lower())
    links = page.head.find_all("link", rel="stylesheet")
    above = (
        f"#{anchor(name)} {{ page: {anchor(name)} }}"
        f"@page {anchor(name)} {{ @top-right {{ content: {json.dumps(text.h1.get_text(), ensure_ascii=False)} }} }}"
        for name, text in texts.items()
    )
    own = '<link rel="stylesheet" href="_static/printed.css">'
    return "".join([*map(str, (*links, *scripts)), own, "<style>", *above, "</style>"]).replace('"../', '"')


def printed(page: Page, address: str, head: str, body: str) -> PdfReader:
    """A document as a PDF. Raises RuntimeError for what is wider than the paper and cannot be made smaller."""
    document = f'<!doctype html><html lang="en" data-theme="light"><head>{head}</head><body>{body}</body></html>'
    page.route(address, lambda route: route.fulfill(body=document, content_type="text/html; charset=utf-8"))
    page.goto(address, wait_until="load")
    page.evaluate(TYPESET)
    if wide := page.evaluate(NARROW):
        raise RuntimeError(f"wider than the paper: {wide[0]!r}")
    return PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True, print_background=True)))


def paper(browser: Browser) -> Page:
    """A page as wide as the printed one, so that what fits on it fits on paper."""
    page = opened(browser, color_scheme="light", viewport={"width": WIDTH, "height": 900})
    page.emulate_media(media="print")
    return page


def write_pdf(browser: Browser, html: Path, table: Path, out: Path) -> None:
    """Print all pages of the contents but those LEFT_OUT into one file, with an outline of parts and titles."""
    parts = [(caption, [name for name in names if name not in LEFT_OUT]) for caption, names in contents(table)]
    pages = {
        name: BeautifulSoup((html / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        for _, names in parts
        for name in names
    }
    texts = {name: article(name, page, pages) for name, page in pages.items()}
    first = next(iter(pages.values()))
    cover = "".join(str(first.select_one(each)) for each in COVER)
    head, body = styles(first, texts), "".join(map(str, texts.values()))
    with served(html) as address:
        page = paper(browser)
        book = printed(page, address, head, front(parts, texts, cover) + body)
        places = book.named_destinations
        numbers = {name: book.get_destination_page_number(places[f"/{anchor(name)}"]) + 1 for name in texts}
        over = printed(page, address, head + NUMBERS_ALONE, front(parts, texts, cover, numbers))
    writer = PdfWriter()
    writer.append(book)
    for below, above in zip(writer.pages, over.pages, strict=False):
        below.merge_page(above)
    for caption, names in parts:
        parent = writer.add_outline_item(title=caption, page_number=numbers[names[0]] - 1) if caption else None
        for name in names:
            title = texts[name].h1.get_text()
            writer.add_outline_item(title=title, page_number=numbers[name] - 1, parent=parent)
    with replacing(out) as path:
        writer.write(path)


if __name__ == "__main__":
    with chromium() as found:
        write_pdf(found, *map(Path, sys.argv[1:4]))
