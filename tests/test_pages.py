"""The book as it is built: strictly, with links that lead somewhere, and pages that a browser shows as is meant."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import browser as browsers
import pdf
import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader
from test_book import CONFIG, PAGES, ROOT

pytestmark = pytest.mark.slow
TOPICS = ("requests", "console", "formulas", "images", "wide", "narrow", "light", "dark")
WHOLE = "notebooks/05_quadruplet_loss.html"  # it has code of every kind, tables, figures and formulas
HEAVIEST = 1.5e6  # bytes
MADE_BY_SPHINX = ["genindex.html", "py-modindex.html", "search.html"]

BROKEN = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>broken</title>
<script>console.error("a complaint"); undefinedName();</script></head>
<body><main><h1>broken</h1><p style="color: #bbb; background: #fff">pale</p>
<p style="color: #444; background: #222">dark on dark</p>
<img src="http://192.0.2.1/elsewhere.png"><div class="math">\\(x\\)</div>
<img alt="stretched" src="square.svg" style="width: 10px; height: 300px">
<article><details><div style="overflow-x: auto"><table style="min-width: 1900px"><tr><td>far</td></tr></table></div>
</details>
<table style="min-width: 800px"><tr><td>1.0</td><td>▼ below</td></tr></table></article>
<div style="width: 2000px">wide</div></main></body></html>"""


@pytest.fixture(scope="module")
def soups(built_book) -> dict[Path, BeautifulSoup]:
    found = sorted(path for path in built_book.rglob("*.html") if "_static" not in path.parts)
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in found}


def test_each_chapter_and_page_is_built(built_book):
    wanted = {f"{page}.html" for page in PAGES} | set(MADE_BY_SPHINX)
    assert not {page for page in wanted if not (built_book / page).exists()}


def test_each_chapter_and_one_table_say_how_chapters_stand(soups, built_book):
    chapters = [page for page in PAGES if page.startswith("notebooks/")]
    table = soups[built_book / "book" / "status.html"].select("article tbody tr")
    lines = [soups[built_book / f"{page}.html"].select_one("article h1 + p.status") for page in chapters]
    assert len(table) == len(chapters)
    assert all("shows: " in line.text and line.find("a", href=f"../_sources/{page}.ipynb")
               for page, line in zip(chapters, lines, strict=True))  # fmt: skip


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


def weight(page: Path, soup: BeautifulSoup) -> int:
    """The bytes of a page and of all that it loads, without MathJax, which is loaded once."""
    named = [each.get("src") for each in soup.find_all(["img", "script"])]
    named += [each.get("href") for each in soup.find_all("link", rel="stylesheet")]
    loaded = {(page.parent / unquote(urlsplit(name).path)).resolve() for name in named if name and ":" not in name}
    return sum(path.stat().st_size for path in {page, *loaded} if path.is_file() and "mathjax" not in str(path).lower())


def test_a_page_weighs_little(soups):
    found = {path.name: weight(path, soup) for path, soup in soups.items() if path.name != "index.html"}
    assert min(found.values()) > 5e5  # the theme alone
    assert not {name: bytes_ for name, bytes_ in found.items() if bytes_ > HEAVIEST}


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
    # The dark colours are of the theme and of one style sheet, and looking at them takes as long again; what Sphinx
    # makes has no text of ours.
    dark, ours = {WHOLE, *pages[::5]}, set(pages) - set(MADE_BY_SPHINX)

    def looked_at(some: list[str]) -> dict[str, dict[str, list[str]]]:
        with browsers.served(built_book) as address, browsers.chromium() as own:
            themes = {
                page: [theme for theme, seen in (("light", ours), ("dark", dark & ours)) if page in seen]
                for page in some
            }
            return {page: browsers.visit(own, address, page, page == WHOLE, themes[page]) for page in some}

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
    assert "cut: far" in found["wide"]
    assert "unseen: ▼ below" in found["narrow"]


@pytest.fixture(scope="module")
def printed_book(built_book, chromium, tmp_path_factory) -> PdfReader:
    out = tmp_path_factory.mktemp("printed") / "book.pdf"
    pdf.write_pdf(chromium, built_book, ROOT / "book" / "_toc.yml", out)
    return PdfReader(out)


def test_the_book_as_a_file_has_a_title_contents_and_numbers_of_pages(printed_book):
    """Above each page stand its chapter's title and its number, and the contents and the outline know them."""
    pages, outline = printed_book.pages, printed_book.outline
    assert len(pages) < 250
    cover = pages[0].extract_text()
    assert cover.startswith(CONFIG["title"])
    assert CONFIG["author"] in cover
    chapters = [outline[0], *(chapter for part in outline if isinstance(part, list) for chapter in part)]
    assert len(chapters) == len([page for page in PAGES if page not in pdf.LEFT_OUT])
    titles = [chapter.title for chapter in chapters]
    numbers = [printed_book.get_destination_page_number(chapter) + 1 for chapter in chapters]
    table = pages[1].extract_text().splitlines()
    assert table[-len(numbers) :] == [str(number) for number in numbers]
    assert [line for line in table if line in titles] == titles
    for title, number in list(zip(titles, numbers, strict=True))[::6]:
        assert pages[number - 1].extract_text().splitlines()[:2] == [title, str(number)]
    assert pages[-1].extract_text().splitlines()[:2] == [titles[-1], str(len(pages))]


def test_links_of_the_file_lead_inside_it_or_out_to_the_world(printed_book):
    links = [link.get_object() for page in printed_book.pages for link in page.get("/Annots", [])]
    inside, outside = ([link[key] for link in links if key in link] for key in ("/Dest", "/A"))
    assert set(inside) <= set(printed_book.named_destinations)
    assert len(inside) > 200
    assert all(link["/URI"].startswith(("https://", "http://ufldl.stanford.edu")) for link in outside)


def test_a_wide_table_is_made_smaller_and_what_cannot_be_is_refused(built_book, chromium):
    page, wide = pdf.paper(chromium), "<td style='min-width: 300px'>wide</td>" * 4
    with pdf.served(built_book) as address:
        pdf.printed(page, address, "", f"<article><table><tr>{wide}</tr></table></article>")
        assert page.evaluate("document.querySelector('table').getBoundingClientRect().width") <= pdf.WIDTH
        with pytest.raises(RuntimeError, match="wider than the paper: 'a wide text'"):
            pdf.printed(page, address, "", "<article><p style='width: 900px'>a wide text</p></article>")


def test_every_page_of_the_contents_is_printed():
    named = [page for _, pages in pdf.contents(ROOT / "book" / "_toc.yml") for page in pages]
    assert named == PAGES
