"""What a figure says, not how it looks: marks, labels, alternative texts, errors, and that a notebook can show it."""

import ast
import base64
import io
import subprocess
import sys
from pathlib import Path

import matplotlib
import nbformat
import notebook_kinds
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Circle, Rectangle
from matplotlib.text import Text
from PIL import Image

from qmvae_study.report import figures, pages, words
from qmvae_study.report.intervals import Interval

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LABELS = np.repeat([2, 5, 8], 2)
CORNERS = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])


def grey(rows: int = 2, columns: int = 3) -> np.ndarray:
    return np.linspace(0, 1, rows * columns * 16).reshape(rows, columns, 1, 4, 4)


def colour(rows: int = 2, columns: int = 3) -> np.ndarray:
    return np.arange(rows * columns * 75, dtype=np.uint8).reshape(rows, columns, 3, 5, 5)


def codes(*spreads: float) -> np.ndarray:
    return np.stack([spread * CORNERS[[0, 0, 1, 1, 2, 2]] for spread in spreads])


def epochs(count: int, scale: float = 1.0) -> list[dict[str, float]]:
    return [{"objective": scale * epoch, "quadruplet": 2.0 * epoch} for epoch in range(count)]


def frames(axes) -> list[tuple[float, float]]:
    return [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle)]


GIVEN = {
    figures.image_grid: {"images": grey()},
    figures.cross_generation: {
        "conditions": grey(1), "images": colour(), "readings": [[4, 5, 6], [4, 8, 6]], "digits": [4, 5, 6],
        "title": "ink to photo",
    },
    figures.transfer: {
        "conditions": grey(1), "styles": colour(1, 2), "images": colour(), "readings": [[4, 5, 6], [4, 5, 9]],
        "digits": [4, 5, 6], "title": "ink to photo",
    },
    figures.traversal: {
        "condition": grey(1)[0, 0], "images": colour(), "readings": [[4, 4, 4], [4, 5, 5]], "digit": 4,
        "values": [-5.0, 0.0, 5.0], "labels": ["h1", "h2"], "title": "ink to photo",
    },
    figures.composite: {
        "panels": [figures.Panel("a", colour(1), colour(), np.array([[0, 0, 0], [0, 0, 1]]), colour(1, 2)), "no run"],
        "columns": 2, "alt": "two panels",
    },
    figures.quadruplet_geometry: {
        "codes_x": codes(1), "codes_y": codes(1), "labels": LABELS, "quadruplet": (0, 2, 4), "titles": ["now"],
        "alt": "three corners",
    },
    figures.training_history: {"histories": [epochs(3), epochs(3, 2.0)]},
    figures.comparison: {
        "papers": {("there", "a"): Interval(90.0, 89.0, 91.0), ("there", "b"): None},
        "ours": {
            ("there", "a"): Interval(88.0, 87.0, 89.0), ("there", "b"): Interval(50.0, 40.0, 60.0),
            ("back", "c"): Interval(1.0, 1.0, 1.0),
        },
    },
    figures.dots: {
        "rows": ["a", "b"], "panels": {"read": {"one": [1.0, 2.0], "two": [3.0, None]}, "leak": {"one": [5.0, 6.0]}},
        "bands": {"read": (0.5, 1.5)},
    },
    figures.courses: {
        "panels": {
            "slow": {"one": [([1, 2, 3], [4.8, 4.7, 2.0]), ([1, 2], [4.8, 1.0])], "two": []},
            "fast": {"two": [([1], [3.0])]},
        },
        "x_label": "step", "y_label": "loss",
    },
    figures.confusion: {
        "counts": np.array([[8, 2, 0], [1, 9, 0], [0, 5, 5]]), "row_label": "shown", "column_label": "read",
    },
}  # fmt: skip


def drawn(figure, **changes) -> figures.Picture:
    return figure(**GIVEN[figure] | changes)


@pytest.mark.parametrize("figure", GIVEN, ids=lambda figure: figure.__name__)
def test_a_figure_shows_itself_as_a_picture_with_an_alternative_text(figure):
    picture = drawn(figure)
    assert isinstance(picture, Figure)
    bundle, sizes = picture._repr_mimebundle_(include=None, exclude=None)
    assert bundle["image/png"].startswith(SIGNATURE)
    assert len(bundle["image/png"]) > 1000
    assert bundle["text/plain"] == picture.alt != ""
    assert sizes["image/png"]["width"] > 100


def test_a_given_text_takes_the_place_of_the_made_one():
    assert figures.image_grid(grey(), alt="six squares").alt == "six squares"


def test_the_style_reaches_no_other_figure():
    before = dict(matplotlib.rcParams)
    figures.png(drawn(figures.confusion))
    assert dict(matplotlib.rcParams) == before


def test_no_module_but_this_one_imports_matplotlib_and_none_imports_pyplot_or_ipython():
    root = Path(figures.__file__).parents[2]
    imported = {}
    for path in (path for wing in ("core", "study", "neighbours") for path in (root / f"qmvae_{wing}").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        imported[path.relative_to(root).as_posix()] = names
    assert [m for m, names in imported.items() if any(n.startswith("matplotlib") for n in names)] == [
        "qmvae_study/report/figures.py"
    ]
    assert not [n for names in imported.values() for n in names if n.startswith(("IPython", "matplotlib.pyplot"))]


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys, numpy, qmvae_study.report.figures as f; f.png(f.confusion(numpy.eye(2), 'a', 'b')); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_typeface_has_every_sign_that_the_figures_use():
    typeface = FT2Font(findfont(figures.STYLE["font.family"]))
    assert not [sign for sign in "₋→αβμ±−·" if not typeface.get_char_index(ord(sign))]


# Images


def test_wrong_readings_are_bold_coloured_and_framed_and_right_ones_are_not():
    picture = drawn(figures.cross_generation)
    (axes,) = picture.axes
    assert "5 of 6" in picture.alt
    assert "5 of 6" in axes.get_title(loc="left")
    wrong = [text for text in axes.texts if text.get_weight() == "bold"]
    assert [text.get_text() for text in wrong] == ["8"]
    assert same_color(wrong[0].get_color(), figures.VERMILLION)
    right = [text for text in axes.texts if text.get_weight() != "bold"]
    assert [text.get_text() for text in right] == ["4", "5", "6", "4", "6"]
    assert all(same_color(text.get_color(), figures.GREY) for text in right)
    ((left, top),) = frames(axes)
    assert left < wrong[0].get_position()[0] < left + 1
    assert top < wrong[0].get_position()[1]


def test_a_panel_holds_the_conditions_above_the_generated_images():
    (axes,) = drawn(figures.cross_generation).axes
    shapes = [image.get_array().shape for image in axes.images]
    assert shapes == [(4, 4)] * 3 + [(5, 5, 3)] * 6
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["4", "5", "6"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["condition", "h, draw 1", "h, draw 2"]
    assert axes.yaxis_inverted()


def test_rows_of_a_model_without_private_codes_are_named_after_the_shared_one():
    figure = drawn(figures.cross_generation, draws_of="z")
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["condition", "z, draw 1", "z, draw 2"]
    assert "one draw of z a row" in figure.alt


@pytest.mark.parametrize("images", [grey(), (255 * grey()).astype(np.uint8)], ids=["floats", "bytes"])
def test_black_is_black_and_white_is_white_in_every_image(images):
    (axes,) = figures.image_grid(images).axes
    top = 255 if images.dtype == np.uint8 else 1
    assert {image.get_clim() for image in axes.images} == {(0, top)}


def test_images_stand_in_reading_order():
    images = grey()
    (axes,) = figures.image_grid(images).axes
    shown = sorted(axes.images, key=lambda image: (image.get_extent()[3], image.get_extent()[0]))
    assert np.allclose([image.get_array() for image in shown], images.reshape(6, 4, 4))


def test_a_grid_without_labels_or_notes_has_neither():
    (axes,) = figures.image_grid(colour()).axes
    assert len(axes.images) == 6
    assert not axes.texts
    assert not frames(axes)


def test_transfer_shows_styles_beside_and_conditions_above_and_frames_what_is_read_otherwise():
    picture = drawn(figures.transfer)
    (axes,) = picture.axes
    assert len(axes.images) == 4 + 2 * 4  # the corner is white
    assert np.all(np.asarray(axes.images[0].get_array()) == 1.0)
    assert np.array_equal(axes.images[4].get_array(), colour(1, 2)[0, 0].transpose(1, 2, 0))
    ((left, _),) = frames(axes)
    assert left == pytest.approx(3 * (1 + figures.GAP))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["", "4", "5", "6"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["condition", "style 1", "style 2"]
    assert "5 of 6" in picture.alt


def test_a_traversal_names_its_ends_and_frames_what_is_read_otherwise():
    picture = drawn(figures.traversal)
    (axes,) = picture.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["-5", "", "5"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["condition", "h1", "h2"]
    assert np.array_equal(axes.images[0].get_array(), grey(1)[0, 0, 0])  # the condition, and nothing beside it
    assert all(np.all(np.asarray(image.get_array()) == 1.0) for image in axes.images[1:3])
    assert len(frames(axes)) == 2
    assert "4 of 6" in picture.alt


def test_a_composite_holds_every_pixel_and_a_frame_around_what_is_read_otherwise():
    first, second = drawn(figures.composite).axes
    sheet, cell = first.images[0].get_array(), 5 + 4
    assert sheet.shape == (3 * cell + 4, 4 * cell, 3)
    for row, column in np.ndindex(2, 3):
        top, left = (row + 1) * cell + 4 + 2, (column + 1) * cell + 2
        assert np.array_equal(sheet[top : top + 5, left : left + 5], colour()[row, column].transpose(1, 2, 0))
        assert same_color(sheet[top - 1, left - 1] / 255, figures.VERMILLION) == ((row, column) == (1, 2))
    assert np.array_equal(sheet[2:7, cell + 2 : cell + 7], colour(1)[0, 0].transpose(1, 2, 0))
    assert np.array_equal(sheet[cell + 6 : cell + 11, 2:7], colour(1, 2)[0, 0].transpose(1, 2, 0))
    assert np.all(sheet[:cell, :cell] == 255)  # above the styles
    assert [text.get_text() for text in second.texts] == ["no run"]
    with pytest.raises(ValueError, match="must be uint8"):
        figures.composite([figures.Panel("a", grey(1), grey(), np.zeros((2, 3)))], 1, "")


@pytest.mark.parametrize(("columns", "rows"), [(2, 1), (2, 2), (4, 2)])
def test_the_titles_of_a_composite_stand_apart_and_inside(columns, rows):
    names = ("as-printed", "first-best", "dmvae", "mmvae+particles=8", "mvae")  # of which there are figures
    title = f"{max(map(words.reading, names), key=len)} (bfloat16)\n131,410 steps\nSVHN→MNIST: 100 % right"
    given, made = np.zeros((1, 10, 3, 32, 32), np.uint8), np.zeros((4, 10, 3, 32, 32), np.uint8)
    panels = [figures.Panel(title, given, made, np.zeros((4, 10)))] * columns * rows
    picture = figures.composite(panels, columns, "")
    picture.draw_without_rendering()
    titles = picture.findobj(lambda each: isinstance(each, Text) and each.get_text() == title)
    assert len(titles) == len(panels)
    at, images = ([each.get_window_extent() for each in parts] for parts in (titles, picture.axes))
    assert at[0].y1 <= picture.bbox.y1
    assert at[0].x1 <= images[1].x0
    assert rows == 1 or at[columns].y1 <= images[0].y0


def test_a_picture_is_stored_in_few_colours_and_keeps_what_it_shows():
    stored = figures.png(drawn(figures.comparison))
    with Image.open(io.BytesIO(stored)) as image:
        assert image.mode == "P"
        assert (255, 255, 255) in {colour for _, colour in image.convert("RGB").getcolors()}


def test_a_picture_is_pasted_with_its_alternative_text():
    pasted = figures.in_html(figures.image_grid(grey(), alt='six "squares"'))
    assert 'alt="six &quot;squares&quot;" width="' in pasted
    assert base64.b64decode(pasted.split("base64,")[1].rstrip('">')).startswith(SIGNATURE)


def test_dots_stand_at_their_values_in_their_rows():
    picture = drawn(figures.dots)
    first, second = picture.axes
    points = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in first.lines[2:]}
    assert points == {"one": ([1.0, 2.0], [0, 1]), "two": ([3.0], [0])}
    assert len({line.get_marker() for line in first.lines[2:]}) == 2  # told apart without colour
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"]
    (band,) = first.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (0.5, 1.5)
    assert not second.patches
    assert picture.data[("read", "one")].tolist() == [1.0, 2.0]
    assert pd.isna(picture.data.loc["b", ("read", "two")])


# Codes


def test_circles_have_the_radius_that_each_distance_must_reach():
    (x,), (y,) = codes(1), codes(1) + [0.0, 1.5]
    (axes,) = drawn(figures.quadruplet_geometry, codes_y=y[None], alpha1=2.0, alpha2=0.8).axes
    circles = [(patch.center, patch.radius) for patch in axes.patches if isinstance(patch, Circle)]
    centres, radii = zip(*circles, strict=True)
    assert radii == pytest.approx([3.5, 3.5, 2.3])
    assert np.allclose(centres, [x[0], y[0], x[2]])


def test_each_hinge_says_by_how_much_it_is_short():
    both = codes(0.25, 1)  # the digits are 1.5 apart: 0.5 short of α1, and the third hinge of α2 = 0.8 is reached
    figure = drawn(figures.quadruplet_geometry, codes_x=both, codes_y=both, titles=["before", "after"])
    before, after = ([text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes)
    assert [line.split(": ")[-1] for line in before[1:]] == ["short by 0.50", "short by 0.50", "reached"]
    assert [line.split(": ")[-1] for line in after[1:]] == ["reached"] * 3


# Numbers


def test_a_history_has_a_panel_a_term_and_a_line_a_seed():
    figure = drawn(figures.training_history)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["objective", "quadruplet"]
    first, second = figure.axes[0].lines
    assert list(first.get_xdata()) == [1, 2, 3]
    assert list(second.get_ydata()) == [0.0, 2.0, 4.0]
    assert first.get_linestyle() != second.get_linestyle()


def test_a_comparison_has_a_panel_a_column_a_line_a_row_and_no_dot_where_there_is_no_value():
    figure = drawn(figures.comparison)
    there, back = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["there", "back"]
    assert [tick.get_text() for tick in there.get_yticklabels()] == ["a", "b", "c"]
    dots, others = (
        {line.get_label(): line for line in axes.lines if line.get_label() in ("paper", "ours")}
        for axes in (there, back)
    )
    assert list(dots["paper"].get_xdata()) == [90.0]
    assert list(dots["ours"].get_xdata()) == [88.0, 50.0]
    assert list(zip(*others["ours"].get_data(), strict=True)) == [(1.0, 2.16)]
    assert dots["paper"].get_marker() != dots["ours"].get_marker()
    assert figure.data.loc["b"].tolist() == ["", "50.0 (40.0 to 60.0)", "", ""]


def test_lines_of_a_name_look_alike_in_every_panel_and_other_names_do_not():
    figure = drawn(figures.courses, level=4.8, xscale="log")
    slow, fast = figure.axes
    level, *lines = slow.lines
    assert set(level.get_ydata()) == {4.8}
    assert [list(line.get_ydata()) for line in lines] == [[4.8, 4.7, 2.0], [4.8, 1.0]]
    one, again, two = ((each.get_color(), each.get_linestyle(), each.get_marker()) for each in (*lines, fast.lines[1]))
    assert one == again
    assert not any(a == b for a, b in zip(one, two, strict=True))
    assert slow.get_xscale() == "log"
    assert (slow.get_xlabel(), slow.get_ylabel(), fast.get_title(loc="left")) == ("step", "loss", "fast")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]
    assert figure.data.values.tolist() == [
        ["slow", "one", 1, 4.8, 3, 2.0], ["slow", "one", 1, 4.8, 2, 1.0], ["fast", "two", 1, 3.0, 1, 3.0],
    ]  # fmt: skip
    assert "loss over step, two panels" in figure.alt
    assert len(drawn(figures.courses).axes[0].lines) == 2  # without a level


def test_confusion_shows_each_count_and_names_the_worst():
    counts, figure = GIVEN[figures.confusion]["counts"], drawn(figures.confusion)
    assert [text.get_text() for text in figure.axes[0].texts] == [str(n) for n in counts.flatten()]
    assert figure.axes[0].get_xlabel() == "read"
    assert "22 of 30" in figure.alt
    assert "2 read as 1, 5 times" in figure.alt
    assert np.allclose(figure.axes[0].images[0].get_array(), 10 * counts)


# Errors


@pytest.mark.parametrize(
    ("figure", "changes", "words"),
    [
        (figures.courses, {"panels": {}}, "at least one, and each of them a line"),
        (figures.courses, {"panels": {"a": {"b": []}}}, "at least one, and each of them a line"),
        (figures.courses, {"panels": {"a": {"b": [([1, 2], [1.0])]}}}, "y of b must have 2 entries, got 1"),
        (figures.image_grid, {"images": grey()[0]}, r"images must be \(rows, columns, c, h, w\)"),
        (figures.image_grid, {"images": np.zeros((1, 1, 2, 4, 4))}, "c 1 or 3"),
        (figures.image_grid, {"images": grey()[:0]}, "images must be"),
        (figures.image_grid, {"images": 2 * grey()}, r"images must lie in \[0, 1\]"),
        (figures.image_grid, {"images": np.full((2, 3, 1, 4, 4), np.nan)}, r"images must lie in \[0, 1\]"),
        (figures.image_grid, {"images": np.zeros((2, 3, 1, 4, 4), dtype=int)}, "images must be uint8 or floats"),
        (figures.image_grid, {"row_labels": ["a"]}, "row_labels must have 2 entries"),
        (figures.image_grid, {"column_labels": list("ab")}, "column_labels must have 3 entries"),
        (figures.image_grid, {"notes": [["a"]]}, r"notes must be \(2, 3\)"),
        (figures.image_grid, {"wrong": [[True] * 2] * 2}, r"wrong must be \(2, 3\)"),
        (figures.cross_generation, {"conditions": grey(1, 2)}, r"conditions must be \(1, 3, c, h, w\)"),
        (figures.cross_generation, {"conditions": grey(2)}, r"conditions must be \(1, 3, c, h, w\)"),
        (figures.cross_generation, {"readings": [[1, 2, 3]]}, r"readings must be \(2, 3\)"),
        (figures.cross_generation, {"digits": [1, 2]}, "digits must have 3 entries"),
        (figures.transfer, {"conditions": grey(1, 2)}, r"conditions must be \(1, 3, c, h, w\)"),
        (figures.transfer, {"styles": colour(1, 3)}, r"styles must be \(1, 2, c, h, w\)"),
        (figures.transfer, {"styles": grey(1, 2)}, r"styles must be \(1, 2, c, h, w\)"),
        (figures.transfer, {"styles": colour(2, 2)}, r"styles must be \(1, 2, c, h, w\)"),
        (figures.transfer, {"readings": [[1, 2]]}, r"readings must be \(2, 3\)"),
        (figures.transfer, {"digits": [1, 2]}, "digits must have 3 entries"),
        (figures.traversal, {"readings": [[4, 4]]}, r"readings must be \(2, 3\)"),
        (figures.traversal, {"labels": ["h1"]}, "labels must have 2 entries"),
        (figures.traversal, {"values": [0.0]}, "values must have 3 entries"),
        (figures.dots, {"rows": []}, "nothing to show"),
        (figures.dots, {"panels": {}, "bands": None}, "nothing to show"),
        (figures.dots, {"panels": {"read": {"one": [1.0]}}}, "read, one must have 2 entries"),
        (figures.dots, {"bands": {"other": (0, 1)}}, "no panel 'other'"),
        (figures.quadruplet_geometry, {"codes_x": np.zeros((1, 6, 3))}, r"must be \(panels, n, 2\)"),
        (figures.quadruplet_geometry, {"codes_y": np.zeros((1, 5, 2))}, "must be"),
        (figures.quadruplet_geometry, {"labels": [1, 2]}, "labels must have 6 entries"),
        (figures.quadruplet_geometry, {"titles": ["before", "after"]}, "titles must have 1 entries"),
        (figures.quadruplet_geometry, {"quadruplet": (0, 2, 6)}, "quadruplet must be three rows below 6"),
        (figures.training_history, {"histories": []}, "histories"),
        (figures.training_history, {"histories": [[]]}, "histories"),
        (figures.training_history, {"histories": [epochs(2), epochs(3)]}, "histories"),
        (figures.training_history, {"histories": [epochs(1), [{"objective": 1.0}]]}, "histories"),
        (figures.comparison, {"papers": {}, "ours": {}}, "both empty"),
        *((figures.confusion, {"counts": counts}, "counts must")
          for counts in (np.zeros((2, 3)), np.zeros(4), np.zeros((0, 0)), -np.eye(2))),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(figure, changes, words):
    with pytest.raises(ValueError, match=words):
        drawn(figure, **changes)


# Notebooks


@pytest.mark.parametrize("notebook", notebook_kinds.strict(), ids=lambda path: path.stem)
def test_the_books_alternative_text_is_the_figures_own(notebook):
    for cell in nbformat.read(notebook, as_version=4).cells:
        said = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        if said is not None:
            assert said in [output.get("data", {}).get("text/plain") for output in cell.outputs]
            assert len(said) <= 300


@pytest.mark.parametrize(
    ("profile", "kind", "what"), [("smoke", "stand-in", "smoke run"), ("quick", "stand-in", "stand-in data")]
)
def test_pictures_of_a_smoke_run_or_of_the_stand_in_say_so(profile, kind, what):
    pages.own_up("quick", "real")
    assert figures.image_grid(grey()).get_suptitle() == ""
    pages.own_up(profile, kind)
    picture = figures.image_grid(grey())
    assert picture.get_suptitle() == f"{what}: shows that the code works, nothing else"
    assert picture.alt.startswith(f"{picture.get_suptitle()}. ")
