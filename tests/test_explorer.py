"""The explorer page in a real browser: its images are the library's, and they follow the sliders."""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qmvae_core import study

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import explorer  # noqa: E402 - an extension of the book, not a package

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
STYLES = {"mnist": [0.5, -1.0], "svhn": [2.0, 0.1]}  # of the first two dimensions, the others zero
PAGE = """<!doctype html><html><body><div id="explorer-app"><p>nothing yet</p></div><pre id="found"></pre>
<script src="explorer-model.js"></script><script src="explorer.js"></script><script>
addEventListener("load", () => {
  const model = window.QMVAE_MODEL, styles = STYLES, found = {decoded: {}, before: {}, after: {}, labels: {}};
  const pixels = () => Object.fromEntries([...document.querySelectorAll("#explorer-app section")].map((section) => {
    const canvas = section.querySelector("canvas");
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return [section.querySelector("h2").textContent.toLowerCase(), [canvas.width, Array.from(data)]];
  }));
  for (const name of Object.keys(model.modalities)) {
    const style = model.modalities[name].information.map((_, d) => styles[name][d] ?? 0);
    found.decoded[name] = Object.values(model.codes).map(
      (codes) => codes.map((code) => Array.from(Explorer.decode(model, name, code, style))));
  }
  found.before = pixels();
  const slider = document.getElementById("explorer-svhn-0");
  slider.value = "-1.5";
  slider.dispatchEvent(new Event("input"));
  found.after = pixels();
  document.querySelectorAll("#explorer-app input[name=explorer-digit]")[7].click();
  found.digit = pixels();
  found.labels = [...document.querySelectorAll("#explorer-app canvas")].map((each) => each.getAttribute("aria-label"));
  found.unlabelled = [...document.querySelectorAll("#explorer-app input")].filter((each) => !each.labels.length).length;
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script></body></html>"""

needs_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def model():
    record = explorer.best_record(study.RESULTS)
    return study.load_model(record, study.RESULTS)


@pytest.fixture(scope="module")
def exported():
    return explorer.exported(study.RESULTS)


@pytest.fixture(scope="module")
def found(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorer")
    (folder / "explorer-model.js").write_text(f"window.QMVAE_MODEL = {json.dumps(exported)};\n")
    shutil.copy(ROOT / "book" / "_static" / "explorer.js", folder)
    (folder / "index.html").write_text(PAGE.replace("STYLES", json.dumps(STYLES)))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    address = (folder / "index.html").as_uri()
    page = subprocess.run(
        [*command, "--virtual-time-budget=20000", "--dump-dom", address],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', page, re.DOTALL)[1]))


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


@needs_a_browser
@pytest.mark.parametrize("name", STYLES)
def test_the_page_computes_the_librarys_images(found, model, exported, name):
    of_page = torch.tensor(found["decoded"][name])
    of_library = images(model, exported, name, dict(enumerate(STYLES[name])))
    torch.testing.assert_close(of_page.reshape(of_library.shape), of_library, atol=1e-5, rtol=0)


def shown(canvas: list) -> torch.Tensor:
    """The pixels of a canvas as an image (3, h, w)."""
    width, data = canvas
    return torch.tensor(data, dtype=torch.float32).reshape(-1, width, 4)[..., :3].permute(2, 0, 1) / 255


@needs_a_browser
def test_what_is_drawn_follows_slider_and_digit_and_is_the_librarys(found, model, exported):
    for moment, digit, style in (("before", 3, {}), ("after", 3, {0: -1.5}), ("digit", 7, {0: -1.5})):
        for name in ("mnist", "svhn"):
            of_library = images(model, exported, name, style if name == "svhn" else {})[0, digit]
            difference = (shown(found[moment][name]) - of_library).abs().max()
            assert difference < 1.01 / 255, (moment, name)
    assert found["before"]["svhn"] != found["after"]["svhn"]
    assert found["before"]["mnist"] == found["after"]["mnist"]


@needs_a_browser
def test_every_control_has_a_label_and_the_images_say_what_they_show(found):
    assert found["unlabelled"] == 0
    assert found["labels"][1] == "SVHN image decoded from the shared code of digit 7, 1 private dimensions moved"


def test_a_folder_without_weights_is_an_error_with_the_remedy(tmp_path):
    shutil.copytree(study.RESULTS / "runs", tmp_path / "runs")
    with pytest.raises(explorer.RecordError, match="needs weights of 'best'"):
        explorer.best_record(tmp_path)
