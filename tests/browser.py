"""A page as a reader's browser has it: what it asks for, complains of, leaves untypeset or pushes off the screen."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
GRAVE = ("serious", "critical")

TYPESET = """async () => {
    const formulas = [...document.querySelectorAll(".math")];
    if (!formulas.length) return [];
    const end = Date.now() + 20000;
    while (!window.MathJax?.startup?.promise && Date.now() < end) await new Promise((go) => setTimeout(go, 20));
    await window.MathJax?.startup?.promise;
    const bad = (each) => !each.querySelector("mjx-container") || each.querySelector("[data-mml-node=merror]");
    return formulas.filter(bad).map((each) => each.textContent.slice(0, 60));
}"""
WIDER = """() => {
    const page = document.documentElement;
    if (page.scrollWidth <= page.clientWidth) return [];
    const over = [...document.querySelectorAll("body *")].filter((each) => {
        if (each.getBoundingClientRect().right <= page.clientWidth) return false;
        for (let above = each.parentElement; above && above !== document.body; above = above.parentElement)
            if (getComputedStyle(above).overflowX !== "visible") return false;
        return true;
    });
    return [`${page.scrollWidth} pixels`, ...over.slice(0, 3).map((each) => `${each.tagName}.${each.className}`)];
}"""
SILENT = """() => [...document.querySelectorAll("article img, main img")]
    .filter((each) => !each.alt.trim()).map((each) => each.src)"""


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
    """The machine's own Chromium, without a window."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def _violations(page: Page, **options) -> list[str]:
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{rule['id']} on {len(rule['nodes'])}: {rule['nodes'][0]['html'][:120]}"
        for rule in found
        if rule["impact"] in GRAVE
    ]


def visit(browser: Browser, address: str, page_name: str) -> dict[str, list[str]]:
    """What is wrong with a page, by topic; every list is empty on a page that is as it should be."""
    asked, said = [], []
    page = browser.new_page(viewport=WIDE)
    try:
        page.on("request", lambda each: asked.append(each.url))
        page.on("console", lambda each: said.append(each.text) if each.type in ("error", "warning") else None)
        page.on("pageerror", lambda each: said.append(str(each)))
        page.goto(address + page_name, wait_until="load")
        found = {"formulas": page.evaluate(TYPESET), "images": page.evaluate(SILENT), "wide": page.evaluate(WIDER)}
        found["requests"] = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        found["console"] = list(said)  # before axe asks for files of its own
        page.add_style_tag(content="* { transition: none !important; }")
        found["light"] = _violations(page)
        page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
        found["dark"] = _violations(page, runOnly=["color-contrast"])
        page.set_viewport_size(NARROW)
        page.wait_for_timeout(100)
        found["narrow"] = page.evaluate(WIDER)
        return found
    finally:
        page.close()
