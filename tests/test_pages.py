"""The book as it is built: strictly, with links that lead somewhere, and pages that a browser shows as is meant."""

from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import browser as browsers
import pytest
from bs4 import BeautifulSoup
from test_book import PAGES

pytestmark = pytest.mark.slow
TOPICS = ("requests", "console", "formulas", "images", "wide", "narrow", "light", "dark")
MADE_BY_SPHINX = ["genindex.html", "py-modindex.html", "search.html"]

BROKEN = """<!doctype html><html lang="en"><head><title>broken</title>
<script>console.error("a complaint"); undefinedName();</script></head>
<body><main><h1>broken</h1><p style="color: #bbb; background: #fff">pale</p>
<p style="color: #444; background: #222">dark on dark</p>
<img src="http://192.0.2.1/elsewhere.png"><div class="math">\\(x\\)</div>
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
    with browsers.served(built_book) as address:
        pages = [f"{page}.html" for page in PAGES] + MADE_BY_SPHINX
        return {page: browsers.visit(chromium, address, page) for page in pages}


@pytest.mark.parametrize("topic", TOPICS)
def test_pages_in_a_browser(visits, topic):
    """Nothing asked of another machine, no complaint, formulas set, images described, no overflow, no barrier."""
    assert not {page: found[topic] for page, found in visits.items() if found[topic]}


def test_what_is_wrong_with_a_page_is_seen(tmp_path, chromium):
    (tmp_path / "broken.html").write_text(BROKEN)
    with browsers.served(tmp_path) as address:
        found = browsers.visit(chromium, address, "broken.html")
    assert {topic for topic in TOPICS if found[topic]} == set(TOPICS)
    assert found["requests"] == ["http://192.0.2.1/elsewhere.png"]
    assert any("undefinedName" in each for each in found["console"])
