"""The panels of Figures 3 to 5: chosen by rule, decoded from the codes that they name, and whole on disk."""

import re

import numpy as np
import pytest
import torch

from qmvae_core.data import Digits
from qmvae_core.evaluation import Context, generator_for
from qmvae_core.models import build_model
from qmvae_study.evidence.pictures import ROWS, SWEEP, load_panel, panel_images
from qmvae_study.evidence.records import Panel, Record, RecordError
from qmvae_study.panels import make_panels, nth_of_each_digit, save_panel

DIRECTIONS = ["ink->photo", "photo->ink"]


class Judge:
    """Reads the mean brightness of an image as a digit."""

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        return (images.flatten(1).mean(dim=1) * 9.99).long()


JUDGES = {"ink": Judge(), "photo": Judge()}


@pytest.fixture(scope="module")
def digits():
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in (("ink", (1, 6, 6)), ("photo", (3, 8, 8))):
        labels = torch.arange(10).repeat(3)[torch.randperm(30, generator=generator)]
        images = torch.randint(0, 256, (30, *shape), dtype=torch.uint8, generator=generator)
        found[name] = Digits(images, labels)
    return found


def panels_of(model, digits, folder, seed=0):
    return make_panels(Context(model, {}, digits, JUDGES, seed), folder, "run")


@pytest.fixture(scope="module")
def made(small_config, digits, tmp_path_factory):
    """A model with private codes, its panels and their folder."""
    model, folder = build_model(small_config(), 0).eval(), tmp_path_factory.mktemp("panels")
    return model, panels_of(model, digits, folder), folder


def close(pixels: np.ndarray, images: torch.Tensor) -> bool:
    return np.abs(pixels / 255 - images.detach().numpy()).max() <= 0.51 / 255


def test_every_kind_has_both_directions_and_every_file(made):
    _, panels, folder = made
    assert {kind: list(each) for kind, each in panels.items()} == dict.fromkeys(
        ("cross_generation", "transfer", "traversal"), DIRECTIONS
    )
    named = [file for each in panels.values() for panel in each.values() for file in panel["files"].values()]
    assert sorted(named) == sorted(path.name for path in folder.iterdir())


def test_positions_are_the_nth_of_each_digit_in_file_order(digits):
    labels = digits["ink"].labels.tolist()
    for n in (0, 1, 2):
        expected = [[i for i, label in enumerate(labels) if label == digit][n] for digit in range(10)]
        assert nth_of_each_digit(digits["ink"], n).tolist() == expected
    assert nth_of_each_digit(digits["ink"], 7).tolist() == nth_of_each_digit(digits["ink"], 2).tolist()


@pytest.mark.parametrize("code", ["mean", "sample"])
def test_cross_generation_shares_one_style_along_each_row_and_takes_the_test_code(small_config, digits, tmp_path, code):
    model = build_model(small_config(test_code=code), 0).eval()
    for direction, panel in panels_of(model, digits, tmp_path)["cross_generation"].items():
        source, target = direction.split("->")
        found = panel_images(Panel(**panel), tmp_path)
        chosen = nth_of_each_digit(digits[source])
        assert (panel["positions"], panel["digits"]) == (chosen.tolist(), list(range(10)))
        assert panel["rows"] == "draws of h"
        assert np.array_equal(found["conditions"][0], digits[source].images[chosen].numpy())
        generator = generator_for(0, "panel", "cross_generation", source, target)
        posterior = model.encode_shared({source: digits[source].batch(chosen)})
        shared = posterior.mean
        if code == "sample":
            shared = posterior.sample(torch.randn(shared.shape, generator=generator))
        styles = torch.randn((ROWS, model.config.modalities[target].private), generator=generator)
        for row, style in enumerate(styles):
            expected = model.decode(target, shared, style.expand(10, -1))
            assert close(found["generated"][row], expected)
            assert panel["read"][row] == Judge().predict(expected).tolist()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_transfer_has_the_digit_of_its_column_and_the_style_of_its_row(made, digits, direction):
    model, panels, folder = made
    source, target = direction.split("->")
    panel = Record(panels=panels).panel("transfer", source, target)
    found = panel_images(panel, folder)
    styled = nth_of_each_digit(digits[target], 1)
    assert panel.style_positions == styled.tolist()
    assert np.array_equal(found["styles"][0], digits[target].images[styled].numpy())
    contents = digits[source].batch(nth_of_each_digit(digits[source]))
    for row in range(10):
        for column in (0, 9):
            style = digits[target].batch(styled[row : row + 1])
            shared = model.encode_shared({source: contents[column : column + 1]}).mean
            expected = model.decode(target, shared, model.encode_private(target, style).mean)
            assert close(found["generated"][row, column], expected[0])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_traversal_moves_one_dimension_a_row(made, digits, direction):
    model, panels, folder = made
    source, target = direction.split("->")
    panel = Record(panels=panels).panel("traversal", source, target)
    found = panel_images(panel, folder)["generated"]
    private = model.config.modalities[target].private
    assert found.shape[:2] == (private, 20)
    assert (SWEEP[0], SWEEP[-1]) == (-5.0, 5.0)
    assert np.allclose(np.diff(SWEEP), 10 / 19)
    shared = model.encode_shared({source: digits[source].batch(torch.tensor([0]))}).mean
    for dimension in range(private):
        for place in (0, 7, 19):
            style = torch.zeros(1, private)
            style[0, dimension] = SWEEP[place]
            assert close(found[dimension, place], model.decode(target, shared, style)[0])


def test_a_model_without_private_codes_has_panels_of_cross_generation_alone(small_config, digits, tmp_path):
    model = build_model(small_config(model="mvae", of_all={"private": 0}), 0).eval()
    panels = panels_of(model, digits, tmp_path)
    assert list(panels) == ["cross_generation"]
    for direction, panel in panels["cross_generation"].items():
        source, target = direction.split("->")
        assert panel["rows"] == "draws of z"
        generated = panel_images(Panel(**panel), tmp_path)["generated"]
        generator = generator_for(0, "panel", "cross_generation", source, target)
        posterior = model.encode_shared({source: digits[source].batch(nth_of_each_digit(digits[source]))})
        for row in generated:
            drawn = posterior.sample(torch.randn(posterior.mean.shape, generator=generator))
            assert close(row, model.decode(target, drawn, drawn[:, :0]))
        assert not np.array_equal(generated[0], generated[1])


def test_panels_depend_on_the_seed_in_their_styles_alone(made, small_config, digits, tmp_path):
    model, panels, folder = made
    again = panels_of(model, digits, tmp_path, seed=1)
    for direction in DIRECTIONS:
        for kind, same in (("transfer", True), ("cross_generation", False)):
            before = panel_images(Panel(**panels[kind][direction]), folder)["generated"]
            after = panel_images(Panel(**again[kind][direction]), tmp_path)["generated"]
            assert np.array_equal(before, after) == same


# On disk


@pytest.mark.parametrize("channels", [1, 3])
def test_a_panel_comes_back_pixel_by_pixel(tmp_path, channels):
    images = torch.rand((4, 5, channels, 6, 7), generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1
    save_panel(tmp_path / "a.b=3.png", images)
    found = load_panel(tmp_path / "a.b=3.png", 4, 5)
    assert (found.shape, found.dtype) == (images.shape, np.uint8)
    assert np.array_equal(found, (images.clip(0, 1) * 255).round().numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["a.b=3.png"]
    for rows, columns in ((5, 5), (4, 6)):
        with pytest.raises(RecordError, match=f"does not hold {rows} x {columns} images"):
            load_panel(tmp_path / "a.b=3.png", rows, columns)


def test_a_panel_that_is_not_whole_is_an_error_with_the_remedy(tmp_path):
    path = tmp_path / "panel.png"
    save_panel(path, torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    content = path.read_bytes()
    halves = [content[:length] for length in (0, 5, 20, 40, 60, len(content) // 2, len(content) - 25)]
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    for bad in (*halves, damaged):
        path.write_bytes(bad)
        with pytest.raises(RecordError, match=f"panel {re.escape(str(path))} cannot be read .*run its record again"):
            load_panel(path, 2, 3)
    path.unlink()
    with pytest.raises(RecordError, match="cannot be read"):
        load_panel(path, 2, 3)
