"""The explorer page in a real browser: its pictures and readings are the library's, and it can be used by anyone."""

import shutil
from itertools import product

import browser
import explorer
import pytest
import torch

from qmvae_core.names import BEST
from qmvae_study import runs as study_runs
from qmvae_study.evidence import folder as places

LYING = {"width": 844, "height": 390}  # a phone on its side
HEAVIEST = 1.5e6  # bytes of a page without MathJax
PIXELS = """() => Object.fromEntries([...document.querySelectorAll("#explorer-app figure")].map((figure) => {
    const canvas = figure.querySelector("canvas");
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const [name, reading] = figure.querySelector("figcaption").textContent.split(", read as ");
    return [name.toLowerCase(), [canvas.width, Array.from(data), reading]];
}))"""
COMPUTED = """async (states) => {
    const found = [];
    for (const state of states) {
        const pictures = Object.entries(await Explorer.compute(state));
        found.push(Object.fromEntries(pictures.map(([name, { image, read }]) => [name, [Array.from(image), read]])));
    }
    return found;
}"""
SMALL_TARGETS = """() => [...document.querySelectorAll("#explorer-app :is(input, button, summary, label:has(input))")]
    .filter((each) => Math.min(each.getBoundingClientRect().width, each.getBoundingClientRect().height) < 24)
    .map((each) => each.outerHTML.slice(0, 80))"""
OPEN = "() => document.querySelectorAll('#explorer-app details').forEach((each) => { each.open = true; })"
COVERED = """() => {
    const covered = (each) => {
        const box = each.getBoundingClientRect();
        const heights = [box.top + 2, box.bottom - 2];
        return heights.some((y) => !each.contains(document.elementFromPoint(box.left + box.width / 2, y)));
    };
    document.documentElement.style.scrollBehavior = "auto";
    const controls = [...document.querySelectorAll("#explorer-app :is(input, button, summary)")];
    const hidden = (control) => {
        control.focus();
        return [control, ...document.querySelectorAll("#explorer-app figure canvas")].filter(covered);
    };
    return [...controls, ...controls.toReversed()].flatMap(hidden).map((each) => each.outerHTML.slice(0, 80));
}"""


@pytest.fixture(scope="module")
def exported():
    return explorer.exported(places.RESULTS)


@pytest.fixture(scope="module")
def models():
    return {
        name: study_runs.load_model(record, places.RESULTS)
        for name, record in explorer.records_to_show(places.RESULTS).items()
    }


@pytest.fixture(scope="module")
def judges(models):
    return explorer.judges(places.RESULTS, models["long"].config.modalities)


@pytest.fixture(scope="module")
def given():
    """Modality -> the images of ten digits that the page has, (10, c, h, w) in [0, 1]."""
    images = explorer.images_given(explorer.records_to_show(places.RESULTS)["long"], places.RESULTS)
    return {name: torch.from_numpy(each).float() / 255 for name, each in images.items()}


@pytest.fixture(scope="module")
def address(built_book):
    with browser.served(built_book) as found:
        yield found + "book/explorer.html"


@pytest.fixture
def page(address, chromium):
    shown = browser.opened(chromium, viewport=browser.NARROW)
    shown.goto(address)
    yield shown
    shown.close()


def test_a_long_and_a_short_training_of_one_reading_are_shown():
    long, short = explorer.records_to_show(places.RESULTS).values()
    assert long.setting("model") == short.setting("model")
    assert long.steps > 4 * short.steps
    assert long.seed == short.seed == 0


def test_the_codes_are_those_of_one_image_a_digit_by_each_encoder_and_both(models, exported, given):
    for name, model in models.items():
        of_page = exported["data"]["models"][name]
        assert list(of_page["shared"]) == ["MNIST and SVHN", "MNIST", "SVHN"]
        for seen, images in zip(of_page["shared"], (given, *({each: given[each]} for each in given)), strict=True):
            torch.testing.assert_close(torch.tensor(of_page["shared"][seen]), model.encode_shared(images).mean)
        for modality, images in given.items():
            of_library = model.encode_private(modality, images).mean
            torch.testing.assert_close(torch.tensor(of_page["private"][modality]), of_library)


def states(exported) -> list[dict]:
    """Of each mode some: training, whose code is seen, digit, walk, and private codes turned or taken from an image.

    Whoever is seen by whichever training has every second of the modes, since a state takes long to compute.
    """
    found = []
    some = {"mnist": [0.5, -1.0, 4.0], "svhn": [2.0, 0.1, 0.0, -3.9]}
    for place, (training, seen) in enumerate(product(("long", "short"), exported["data"]["models"]["long"]["shared"])):
        style = {name: codes[place] for name, codes in exported["data"]["models"][training]["private"].items()}
        zero = {name: [0.0] * len(code) for name, code in style.items()}
        turned = {name: code + zero[name][len(code) :] for name, code in some.items()}
        modes = [(place, 0, zero), (place + 3, 0, turned), (place + 4, 0.35, zero), (9, 1, style)]
        for digit, walk, private in modes[place % 2 :: 2]:
            found.append(
                {"training": training, "seen": seen, "digit": digit, "to": 8, "walk": walk, "private": private}
            )
    return found


@pytest.mark.slow
def test_pictures_and_readings_are_the_librarys_in_each_mode_on_a_disk_too(
    built_book, chromium, models, judges, exported
):
    wanted = states(exported)
    page = browser.opened(chromium)
    page.goto((built_book / "book" / "explorer.html").as_uri())
    of_page = page.evaluate(COMPUTED, wanted)
    page.close()
    for state, found in zip(wanted, of_page, strict=True):
        codes = torch.tensor(exported["data"]["models"][state["training"]]["shared"][state["seen"]])
        shared = torch.lerp(codes[state["digit"]], codes[state["to"]], state["walk"])
        private = {name: torch.tensor(code) for name, code in state["private"].items()}
        of_library = explorer.pictures(models[state["training"]], judges, shared, private)
        for name, (image, read) in of_library.items():
            for mine, wanted_values in zip(found[name], (image.flatten(), read), strict=True):
                torch.testing.assert_close(torch.tensor(mine), wanted_values, atol=1e-5, rtol=0)
            assert torch.tensor(found[name][1]).argmax() == judges[name].predict(image[None])


def shown(page, after: str = "") -> dict[str, tuple[torch.Tensor, str]]:
    """Modality -> the picture (3, h, w) and what is read in it, once a change that begins so has been told."""
    page.wait_for_function(
        "(after) => document.querySelector('#explorer-app [role=status]').textContent.startsWith(after)", arg=after
    )
    found = {}
    for name, (width, data, reading) in page.evaluate(PIXELS).items():
        pixels = torch.tensor(data, dtype=torch.float32).reshape(-1, width, 4)
        found[name] = (pixels[..., :3].permute(2, 0, 1) / 255, reading)
    return found


def assert_shown(found: tuple[torch.Tensor, str], image: torch.Tensor, judge) -> None:
    """The picture is the library's, within a level of grey, and so is its reading."""
    assert (found[0] - image).abs().max() < 1.01 / 255
    read = judge(image[None]).softmax(dim=-1)[0]
    assert found[1] == f"{read.argmax()} ({100 * read.max():.0f} %)"


@pytest.mark.slow
@torch.no_grad()
def test_the_pictures_follow_the_controls_by_keyboard_and_the_change_is_told(page, models, judges, given):
    long, short = models["long"], models["short"]
    zero = torch.zeros(1, long.config.modalities["svhn"].private)

    def expect(found, model, shared, **private):
        for name in given:
            image = model.decode(name, shared, private.get(name, zero))[0]
            assert_shown(found[name], image, judges[name])

    codes = long.encode_shared(given).mean
    expect(shown(page, "The first change loads"), long, codes[[4]])

    slider = page.locator("#explorer-svhn-1")
    slider.focus()
    for _ in range(15):
        page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "-1.5"
    turned = zero.index_fill(1, torch.tensor([1]), -1.5)
    expect(shown(page, "SVHN h2 -1.5: MNIST, read as 4"), long, codes[[4]], svhn=turned)

    page.get_by_role("group", name="Digit").get_by_label("7").focus()
    page.keyboard.press("Space")
    expect(shown(page, "Digit 7: MNIST, read as 7"), long, codes[[7]], svhn=turned)

    page.get_by_role("button", name="SVHN test image of a 5").press("Enter")
    transferred = long.transfer(("mnist", given["mnist"][[7]]), ("svhn", given["svhn"][[5]]))
    page.get_by_role("group", name="Shared code of").get_by_label("MNIST", exact=True).press("Space")
    assert_shown(shown(page, "Shared code of MNIST")["svhn"], transferred[0], judges["svhn"])

    page.get_by_label("short").press("Space")
    transferred = short.transfer(("mnist", given["mnist"][[7]]), ("svhn", given["svhn"][[5]]))
    assert_shown(shown(page, "Training short")["svhn"], transferred[0], judges["svhn"])

    page.get_by_label("From 7 to 9").press("End")
    codes = short.encode_shared({"mnist": given["mnist"]}).mean
    private = short.encode_private("svhn", given["svhn"][[5]]).mean
    expect(shown(page, "Walk from 7 to 9, 100 %"), short, codes[[9]], svhn=private)


@pytest.mark.slow
def test_the_buttons_draw_and_reset_the_private_code(page):
    before = shown(page)
    page.get_by_role("button", name="Draw from the prior").first.click()
    drawn = shown(page, "MNIST private code drawn")
    assert not torch.equal(before["mnist"][0], drawn["mnist"][0])
    assert torch.equal(before["svhn"][0], drawn["svhn"][0])
    page.get_by_role("button", name="Back to zero").first.click()
    assert torch.equal(before["mnist"][0], shown(page, "MNIST private code at zero")["mnist"][0])


@pytest.mark.slow
def test_dimensions_that_are_not_used_are_folded_away_whatever_the_training(page, exported):
    for training in ("short", "long"):
        page.get_by_label(training).check()
        for name, nats in exported["data"]["models"][training]["information"].items():
            used = {f"explorer-{name}-{d}" for d, each in enumerate(nats) if f"{max(each, 0):.2f}" != "0.00"}
            group = page.get_by_role("group", name=f"Private code of {name.upper()}")
            assert 0 < len(used) < len(nats)
            assert {each.get_attribute("id") for each in group.get_by_role("slider").all()} == used
            assert (
                group.locator("summary").inner_text() == f"The other {len(nats) - len(used)} dimensions, of 0.00 nats"
            )
            assert group.locator("details input").count() == len(nats) - len(used)


@pytest.mark.slow
def test_one_live_region_tells_a_change_of_many_steps_once(page):
    assert page.locator("#explorer-app :is(output, [aria-live], [role=status], [role=alert])").count() == 1
    page.get_by_label("5").first.check()
    shown(page, "Digit 5")
    page.evaluate("""() => {
        window.told = [];
        const status = document.querySelector("#explorer-app [role=status]");
        new MutationObserver(() => told.push(status.textContent)).observe(status, { childList: true });
    }""")
    page.evaluate(OPEN)
    page.locator("#explorer-mnist-0").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight", delay=20)
    shown(page, "MNIST h1 1.0")
    told = page.evaluate("told")
    assert told[-1].startswith("MNIST h1 1.0: MNIST, read as ")
    assert len(told) <= 2  # of ten; a slow machine may rest once on the way


@pytest.mark.slow
def test_a_later_change_is_not_overtaken_by_one_that_waits_for_weights(page):
    page.get_by_role("button", name="Draw from the prior").first.click()
    first = shown(page, "MNIST private code drawn")
    page.get_by_label("short").check()
    page.get_by_label("long").check()
    last = shown(page, "Training long")
    assert all(torch.equal(first[name][0], last[name][0]) for name in first)


@pytest.mark.slow
def test_the_page_is_small_and_loads_weights_once_when_something_changes(address, chromium):
    page, asked = browser.opened(chromium), []
    page.on("response", lambda each: asked.append(each))
    page.goto(address, wait_until="networkidle")
    weight = sum(len(each.body()) for each in asked if "mathjax" not in each.url)
    assert weight < HEAVIEST
    before = len(asked)
    for digit in "567":
        page.get_by_role("group", name="Digit").get_by_label(digit).check()
        shown(page, f"Digit {digit}")
    assert sorted(each.url.split("-")[-1] for each in asked[before:]) == ["judges.js", "long.js"]
    page.close()


@pytest.mark.slow
def test_nothing_stands_between_a_reader_and_the_page(address, chromium):
    where, name = address.split("book/")
    found = browser.visit(chromium, where, f"book/{name}", whole=True)
    assert not any(found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("size", [browser.WIDE, browser.NARROW, LYING], ids=["wide", "narrow", "lying"])
def test_targets_are_large_and_pictures_stay_in_view_whatever_has_the_focus(page, size):
    page.set_viewport_size(size)
    page.evaluate(OPEN)
    assert page.evaluate(SMALL_TARGETS) == []
    page.locator("#explorer-walk").scroll_into_view_if_needed()
    assert page.evaluate(COVERED) == []


@pytest.mark.slow
def test_weights_that_cannot_be_had_are_told_and_asked_for_again(page):
    page.route("**/explorer-judges.js", lambda route: route.abort())
    page.get_by_label("7").first.check()
    shown(page, "Nothing was computed: explorer-judges.js could not be loaded")
    page.unroute("**/explorer-judges.js")
    page.get_by_label("8").first.check()
    assert shown(page, "Digit 8")["mnist"][1].startswith("8")


@pytest.mark.slow
def test_without_javascript_the_page_says_what_would_be_there(address, chromium):
    page = browser.opened(chromium, java_script_enabled=False)
    page.goto(address)
    assert "There would be two generated pictures" in page.locator("#explorer-app").inner_text()
    page.close()


def test_a_layer_that_the_page_cannot_compute_is_an_error():
    with pytest.raises(TypeError, match="a layer of the kind Tanh"):
        explorer.layers_of(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh()))


def test_a_folder_without_weights_is_an_error_with_the_remedy(tmp_path):
    shutil.copytree(places.RESULTS / "runs", tmp_path / "runs")
    with pytest.raises(explorer.RecordError, match=f"needs weights of '{BEST}'"):
        explorer.records_to_show(tmp_path)
