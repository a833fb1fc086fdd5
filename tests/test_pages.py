"""The book as it is built: strictly, with links that lead somewhere, and pages that a browser shows as is meant."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import browser as browsers
import pdf
import pytest
import yaml
from bs4 import BeautifulSoup
from pypdf import PdfReader
from test_book import PAGES, ROOT

pytestmark = pytest.mark.slow
TOPICS = ("requests", "console", "formulas", "images", "wide", "narrow", "light", "dark")
WHOLE = "notebooks/05_quadruplet_loss.html"  # it has code of every kind, tables, figures and formulas
MADE_BY_SPHINX = ["genindex.html", "py-modindex.html", "search.html"]

BROKEN = """<!doctype html><html lang="en"><head><title>broken</title>
<script>console.error("a complaint"); undefinedName();</script></head>
<body><main><h1>broken</h1><p style="color: #bbb; background: #fff">pale</p>
<p style="color: #444; background: #222">dark on dark</p>
<img src="http://192.0.2.1/elsewhere.png"><div class="math">\\(x\\)</div>
<img alt="stretched" src="square.svg" style="width: 10px; height: 300px">
<div style="width: 2000px">wide</div></main></body></html>"""


@pytest.fixture(scope="module")
def soups(built_book) -> dict[Path, BeautifulSoup]:
    found = sorted(path for path in built_book.rglob("*.html") if "_static" not in path.parts)
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in found}


def test_each_chapter_and_page_is_built(built_book):
    wanted = {f"{page}.html" for page in PAGES} | set(MADE_BY_SPHINX)
    assert not {page for page in wanted if not (built_book / page).exists()}


def broken_links(soups: dict[Path, BeautifulSoup]) -> list[str]:
    """Links and sources of pages that lead to no file, or to no place in one, of the same folder."""
    names = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in soups.items()}
    broken = []
    for path, soup in soups.items():
        for tag in soup.find_all(["a", "img", "script", "link"]):
            link = tag.get("href") or tag.get("src") or ""
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            file, place = urldefrag(link)
            target = (path.parent / unquote(urlsplit(file).path)).resolve() if file else path
            if not target.is_file() or (place and target in names and unquote(place) not in names[target]):
                broken.append(f"{path.name}: {link}")
    return broken


def test_every_internal_link_leads_somewhere(soups):
    links = sum(len(soup.find_all("a", href=True)) for soup in soups.values())
    assert links > 10 * len(soups)
    assert not broken_links(soups)


def test_a_broken_link_is_seen(tmp_path):
    (tmp_path / "there.html").write_text("<p id='a'></p>")
    text = "<a href='there.html#a'></a><a href='there.html#b'></a><a href='gone.html'></a><img src='gone.png'>"
    pages = {tmp_path / "page.html": text, tmp_path / "there.html": "<p id='a'></p>"}
    soups = {path.resolve(): BeautifulSoup(page, "html.parser") for path, page in pages.items()}
    assert broken_links(soups) == ["page.html: there.html#b", "page.html: gone.html", "page.html: gone.png"]


@pytest.fixture(scope="module")
def visits(built_book, chromium) -> dict[str, dict[str, list[str]]]:
    """What is wrong with each page, by topic; two browsers share the pages, since a page keeps one core busy."""
    pages = [f"{page}.html" for page in PAGES] + MADE_BY_SPHINX

    def looked_at(some: list[str]) -> dict[str, dict[str, list[str]]]:
        with browsers.served(built_book) as address, browsers.chromium() as own:
            return {page: browsers.visit(own, address, page, page == WHOLE) for page in some}

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(looked_at, (pages[::2], pages[1::2]))
    return first | second


@pytest.mark.parametrize("topic", TOPICS)
def test_pages_in_a_browser(visits, topic):
    """Nothing asked of another machine, no complaint, formulas set, images described, no overflow, no barrier."""
    wrong = [f"{page}: {each}" for page, found in visits.items() for each in found[topic]]
    assert not wrong, "\n".join(wrong)


def test_what_is_wrong_with_a_page_is_seen(tmp_path, chromium):
    (tmp_path / "broken.html").write_text(BROKEN)
    (tmp_path / "square.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    with browsers.served(tmp_path) as address:
        found = browsers.visit(chromium, address, "broken.html")
    assert {topic for topic in TOPICS if found[topic]} == set(TOPICS)
    assert found["requests"] == ["http://192.0.2.1/elsewhere.png"]
    assert any("undefinedName" in each for each in found["console"])
    assert "stretched: " in "".join(found["wide"])


def test_the_pages_are_printed_into_one_file_with_an_outline(built_book, chromium, tmp_path):
    table = tmp_path / "_toc.yml"
    chapters = [{"file": "book/cite"}, {"file": "book/explorer"}]
    table.write_text(yaml.safe_dump({"root": "book/notation", "parts": [{"caption": "Some", "chapters": chapters}]}))
    lines = []
    pdf.write_pdf(chromium, built_book, table, tmp_path / "book.pdf", lines.append)
    book = PdfReader(tmp_path / "book.pdf")
    assert [each if isinstance(each, list) else each.title for each in book.outline][:2] == ["Notation", "Some"]
    assert [each.title for each in book.outline[2]] == ["How to cite", "Explorer"]
    assert len(lines) == 3
    text = [page.extract_text() for page in book.pages]
    assert "One symbol means one thing" in text[0]
    assert not any("Skip to main content" in each or "Search" in each for each in text)


def test_every_page_of_the_contents_is_printed():
    named = [page for _, pages in pdf.contents(ROOT / "book" / "_toc.yml") for page in pages]
    assert named == PAGES
