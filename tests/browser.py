"""A page as a reader's browser has it: what it asks for, complains of, leaves untypeset or pushes off the screen."""

from collections.abc import Collection

from axe_playwright_python.sync_playwright import Axe
from pdf import CHROMIUM, TYPESET, chromium, opened, served  # noqa: F401 - for the tests that ask for a browser
from playwright.sync_api import Browser, Page

WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
GRAVE = ("serious", "critical")
# What looks alike many times on a page, and takes most of axe's time; one page is looked at whole.
ALIKE = [".highlight", ".sig", "dl.py ~ dl.py", "mjx-container", ":is(.bd-sidebar, .indextable) li:nth-child(n+4)",
         "tbody tr:nth-child(n+4)"]  # fmt: skip
EMPTY = "(alike) => document.querySelectorAll(alike).forEach((each) => each.replaceChildren())"

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
STRETCHED = """() => [...document.images].filter((each) => {
    const style = getComputedStyle(each);
    const width = each.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const height = each.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    const ratio = (width * each.naturalHeight) / (height * each.naturalWidth);
    return each.naturalWidth && width && Math.abs(ratio - 1) > 0.1;
}).map((each) => `stretched: ${each.src.slice(-40)}`)"""
# Tables, those in folds too, of which a part can be seen only by scrolling.
CUT = """() => {
    const folds = [...document.querySelectorAll("details:not([open])")];
    folds.forEach((each) => { each.open = true; });
    const cut = [...document.querySelectorAll("article table")].filter((table) => {
        let place = table.parentElement;
        while (place && getComputedStyle(place).overflowX === "visible") place = place.parentElement;
        return place && table.scrollWidth > place.clientWidth + 1;
    }).map((table) => `cut: ${table.innerText.slice(0, 60)}`);
    folds.forEach((each) => { each.open = false; });
    return cut;
}"""
# Cells with a verdict that reach beyond the window.
UNSEEN = """() => [...document.querySelectorAll("article td")]
    .filter((each) => /[▼▲=?≠] (below|above|agrees|undecided|depends)/.test(each.innerText))
    .filter((each) => each.getBoundingClientRect().right > document.documentElement.clientWidth)
    .map((each) => `unseen: ${each.innerText}`)"""
SILENT = """() => [...document.querySelectorAll("article img, main img")]
    .filter((each) => !each.alt.trim()).map((each) => each.src)"""


def _violations(page: Page, whole: bool, **options) -> list[str]:
    context = None if whole else {"exclude": [[alike] for alike in ALIKE]}
    found = (
        Axe().run(page, context, {"resultTypes": ["violations"], "preload": False, **options}).response["violations"]
    )
    return [
        f"{rule['id']} on {len(rule['nodes'])}: {rule['nodes'][0]['html'][:120]}"
        for rule in found
        if rule["impact"] in GRAVE
    ]


def visit(
    browser: Browser, address: str, page_name: str, whole: bool = False, themes: Collection[str] = ("light", "dark")
) -> dict[str, list[str]]:
    """What is wrong with a page, by topic; every list is empty on a page that is as it should be.

    whole: let axe look at each line of code and each row of a table. themes: those that axe looks at, the dark one for
    its colours alone.
    """
    asked, said = [], []
    page = opened(browser, viewport=WIDE)
    try:
        page.on("request", lambda each: asked.append(each.url))
        page.on("console", lambda each: said.append(each.text) if each.type in ("error", "warning") else None)
        page.on("pageerror", lambda each: said.append(str(each)))
        page.goto(address + page_name, wait_until="load")
        found = {"formulas": page.evaluate(TYPESET), "images": page.evaluate(SILENT)}
        found["wide"] = page.evaluate(WIDER) + page.evaluate(STRETCHED) + page.evaluate(CUT)
        found["requests"] = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        found["console"] = list(said)  # before axe asks for files of its own
        page.set_viewport_size(NARROW)
        page.wait_for_timeout(100)
        found["narrow"] = page.evaluate(WIDER) + page.evaluate(STRETCHED) + page.evaluate(UNSEEN)
        page.set_viewport_size(WIDE)
        page.add_style_tag(content="* { transition: none !important; }")
        if not whole:
            page.evaluate(EMPTY, ",".join(ALIKE))  # axe reads what it is told to leave out, too
        found["light"] = _violations(page, whole) if "light" in themes else []
        page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
        found["dark"] = _violations(page, whole, runOnly=["color-contrast"]) if "dark" in themes else []
        return found
    finally:
        page.close()
