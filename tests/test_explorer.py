"""The explorer page in a real browser: its images are the library's, and they follow the sliders."""

import shutil

import browser
import explorer
import pytest
import torch

from qmvae_study import runs as study_runs
from qmvae_study.evidence import folder as places

STYLES = {"mnist": [0.5, -1.0], "svhn": [2.0, 0.1]}  # of the first two dimensions, the others zero
DECODED = """(styles) => Object.fromEntries(Object.keys(window.QMVAE_MODEL.modalities).map((name) => {
    const model = window.QMVAE_MODEL;
    const style = model.modalities[name].information.map((_, d) => styles[name][d] ?? 0);
    const images = (codes) => codes.map((code) => Array.from(Explorer.decode(model, name, code, style)));
    return [name, Object.values(model.codes).map(images)];
}))"""
PIXELS = """() => [...document.querySelectorAll("#explorer-app canvas")].map((canvas) => [
    canvas.width, Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)])"""


@pytest.fixture(scope="module")
def model():
    record = explorer.best_record(places.RESULTS)
    return study_runs.load_model(record, places.RESULTS)


@pytest.fixture(scope="module")
def exported():
    return explorer.exported(places.RESULTS)


@pytest.fixture
def page(built_book, chromium):
    opened = chromium.new_page()
    with browser.served(built_book) as address:
        opened.goto(address + "book/explorer.html")
        yield opened
    opened.close()


def images(model, exported, name: str, style: dict[int, float]) -> torch.Tensor:
    """By the library: (kinds of code, digits, c, h, w)."""
    codes = torch.tensor(list(exported["codes"].values()))
    private = torch.zeros(*codes.shape[:2], model.config.modalities[name].private)
    for dimension, value in style.items():
        private[..., dimension] = value
    with torch.no_grad():
        return model.decode(name, codes, private)


def test_the_codes_are_those_of_one_image_a_digit_by_each_encoder_and_both(model, exported):
    assert list(exported["codes"]) == ["MNIST and SVHN", "MNIST", "SVHN"]
    for codes in exported["codes"].values():
        assert (len(codes), len(codes[0])) == (10, model.config.shared)


@pytest.mark.slow
def test_the_page_computes_the_librarys_images(page, model, exported):
    decoded = page.evaluate(DECODED, STYLES)
    for name, style in STYLES.items():
        of_library = images(model, exported, name, dict(enumerate(style)))
        of_page = torch.tensor(decoded[name]).reshape(of_library.shape)
        torch.testing.assert_close(of_page, of_library, atol=1e-5, rtol=0)


def shown(page) -> dict[str, torch.Tensor]:
    """The pixels on the page: modality -> image (3, h, w)."""
    found = {}
    for name, (width, data) in zip(("mnist", "svhn"), page.evaluate(PIXELS), strict=True):
        pixels = torch.tensor(data, dtype=torch.float32).reshape(-1, width, 4)
        found[name] = pixels[..., :3].permute(2, 0, 1) / 255
    return found


@pytest.mark.slow
def test_the_images_follow_slider_and_digit_by_keyboard_and_are_the_librarys(page, model, exported):
    before = shown(page)
    slider = page.locator("#explorer-svhn-0")
    slider.focus()
    for _ in range(15):
        page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "-1.5"
    after = shown(page)
    page.get_by_label("7", exact=True).focus()
    page.keyboard.press("Space")
    for moment, digit, style in ((before, 3, {}), (after, 3, {0: -1.5}), (shown(page), 7, {0: -1.5})):
        for name, image in moment.items():
            of_library = images(model, exported, name, style if name == "svhn" else {})[0, digit]
            assert (image - of_library).abs().max() < 1.01 / 255, (digit, style, name)
    assert not torch.equal(before["svhn"], after["svhn"])
    assert torch.equal(before["mnist"], after["mnist"])
    svhn = page.locator("#explorer-app canvas").nth(1)
    assert svhn.get_attribute("aria-label") == (
        "SVHN image decoded from the shared code of digit 7, 1 private dimensions moved"
    )


@pytest.mark.slow
def test_the_buttons_draw_and_reset_the_private_code(page):
    before = shown(page)
    page.get_by_role("button", name="Draw from the prior").nth(0).click()
    drawn = shown(page)
    assert not torch.equal(before["mnist"], drawn["mnist"])
    assert torch.equal(before["svhn"], drawn["svhn"])
    page.get_by_role("button", name="Back to zero").nth(0).click()
    assert torch.equal(before["mnist"], shown(page)["mnist"])


def test_a_folder_without_weights_is_an_error_with_the_remedy(tmp_path):
    shutil.copytree(places.RESULTS / "runs", tmp_path / "runs")
    with pytest.raises(explorer.RecordError, match="needs weights of 'best'"):
        explorer.best_record(tmp_path)
