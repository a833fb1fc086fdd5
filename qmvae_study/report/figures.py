"""Arrays in, figure out: the pictures of the book, in one style, each with a text for readers who do not see it.

The only module that imports matplotlib, and it does so without pyplot, so there is no current figure and nothing to
close. A `Picture` shows itself in a notebook and is an ordinary matplotlib Figure otherwise. Colour never tells
anything alone: a shape, a weight or a frame says it too.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from PIL import Image

from qmvae_core.names import unit_of
from qmvae_study.report import words
from qmvae_study.report.intervals import Interval

# Okabe and Ito's palette: told apart with any kind of colour vision.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#6E6E6E"
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, YELLOW)
MARKERS = ("o", "D", "s", "^")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same letters
    "font.size": 9.0,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS[:5], linestyle=DASHES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.edgecolor": GREY,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
SCREEN = 96  # pixels an inch at which a page shows the picture
DOTS_PER_INCH = 2 * SCREEN  # drawn finer than shown, it stays sharp

NOTE = 0.34  # height of the note under an image, in image heights
GAP = 0.07  # between images


class Picture(Figure):
    """A matplotlib Figure in the book's style that a notebook displays by itself.

    alt: its alternative text, short. data: where that says too little, the numbers of the picture as a table, for the
    folded cell below it. note: what all pictures of this process say above all else (`pages.own_up`).
    """

    data: pd.DataFrame | None = None
    note = ""
    colours = 256  # of its file, chosen from its own

    def __init__(self, width: float, height: float, alt: str = "", **options):
        with matplotlib.rc_context(STYLE):
            super().__init__(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", **options)
        self.alt = f"{self.note}. {alt}" if self.note else alt
        if self.note:
            self.suptitle(self.note, fontsize=STYLE["font.size"] - 1, color=VERMILLION)

    def add_subplot(self, *args, **kwargs) -> Axes:
        """As Figure's, in the book's style."""
        with matplotlib.rc_context(STYLE):
            axes = super().add_subplot(*args, **kwargs)
        axes.tick_params(labelsize=STYLE["font.size"] - 1, color=GREY)
        return axes

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        width, height = (round(SCREEN * inches) for inches in self.get_size_inches())
        return {"image/png": png(self), "text/plain": self.alt}, {"image/png": {"width": width, "height": height}}


def in_html(picture: Picture) -> str:
    """The picture with its alternative text as an element of HTML, to be pasted into another page."""
    width = round(SCREEN * picture.get_size_inches()[0])
    source = base64.b64encode(png(picture)).decode()
    return f'<img alt="{html.escape(picture.alt)}" width="{width}" src="data:image/png;base64,{source}">'


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file, on white, in few colours of its own: a third of the size, and as sharp."""
    drawn, buffer = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    whole = Image.open(drawn).convert("RGB")
    few = getattr(figure, "colours", Picture.colours)
    whole.quantize(few, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def blank(width: float, height: float, alt: str, rows: int = 1, columns: int = 1, **options):
    """An empty Picture in inches and its axes (one, or an array as Figure.subplots gives), for a plot of one's own."""
    picture = Picture(width, height, alt)
    return picture, picture.subplots(rows, columns, **options)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=STYLE["font.size"] + 1)


def _legend(owner: Picture | Axes, **options) -> None:
    owner.legend(**{"frameon": False, "fontsize": STYLE["font.size"], **options})


# Images


def image_grid(
    images,
    row_labels=None,
    column_labels=None,
    notes=None,
    title: str | None = None,
    wrong=None,
    alt: str | None = None,
) -> Picture:
    """A grid of images, each with a short note below it.

    images: (rows, columns, c, h, w), uint8 or floats in [0, 1], c 1 or 3. row_labels, column_labels: one text each.
    notes: (rows, columns) short texts. wrong: (rows, columns) booleans; there the note is bold and the image framed.
    Raises ValueError for shapes that do not match and for floats outside [0, 1].
    """
    images = _images("images", images)
    rows, columns = images.shape[:2]
    notes, wrong = _table("notes", notes, rows, columns), _table("wrong", wrong, rows, columns)
    _length("row_labels", row_labels, rows)
    _length("column_labels", column_labels, columns)
    alt = alt or f"{title or 'Images'}: {rows} by {columns} images."
    return _grid([Block(images, row_labels, notes, wrong)], column_labels, title, alt)


def cross_generation(conditions, images, readings, digits, title: str, draws_of: str = "h") -> Picture:
    """A panel of Figure 3: conditions in the first row, then rows of generated images, one draw of a code a row.

    conditions: (1, columns, c, h, w). images: (rows, columns, c', h', w'). Both uint8 or floats in [0, 1].
    readings: (rows, columns) digits that the judge reads in the generated images. digits: (columns,) of the
    conditions. A reading that differs from its condition's digit is bold and its image framed; the others are grey.
    draws_of: the code that is drawn for a row, "h" for all conditions together or "z" for each.
    Raises ValueError for shapes that do not match.
    """
    conditions, images, readings, wrong, right = _judged(conditions, images, readings, digits)
    rows, columns = images.shape[:2]
    alt = f"{title}: {columns} conditions in the first row, below them {rows} rows of generated images, one draw of "
    alt += f"{draws_of} a row; {right}."
    labels = [f"{draws_of}, draw {i + 1}" for i in range(rows)]
    blocks = [Block(conditions, ["condition"]), Block(images, labels, readings, wrong)]
    return _grid(blocks, [str(d) for d in digits], f"{title}: {right}", alt)


def _judged(conditions, images, readings, digits) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
    """conditions and images once checked, and `_read` of the readings."""
    conditions, images = _images("conditions", conditions), _images("images", images)
    columns = images.shape[1]
    if conditions.shape[:2] != (1, columns):
        raise ValueError(f"conditions must be (1, {columns}, c, h, w) like the images below, got {conditions.shape}")
    _length("digits", digits, columns)
    return conditions, images, *_read(images, readings, digits)


def _read(images: np.ndarray, readings, digits) -> tuple[np.ndarray, np.ndarray, str]:
    """The readings as texts, where one is wrong, and how many are right, in words."""
    readings = _table("readings", readings, *images.shape[:2])
    wrong = readings != np.asarray(digits)
    return readings.astype(str), wrong, f"{wrong.size - int(wrong.sum())} of {wrong.size} read as the condition's digit"


def transfer(conditions, styles, images, readings, digits, title: str) -> Picture:
    """A panel of Figure 4: the first row gives the shared code, the first column the private code.

    conditions: (1, columns, c, h, w). styles: (1, rows, c', h', w') and images: (rows, columns, c', h', w') of one
    shape. All uint8 or floats in [0, 1]; readings and digits as in `cross_generation`.
    Raises ValueError for shapes that do not match.
    """
    conditions, images, readings, wrong, right = _judged(conditions, images, readings, digits)
    styles = _images("styles", styles)
    rows, columns = images.shape[:2]
    if styles.shape[1:] != (rows, *images.shape[2:]) or len(styles) != 1:
        raise ValueError(f"styles must be (1, {rows}, c, h, w) of the images beside them, got {styles.shape}")
    alt = f"{title}: {columns} conditions in the first row, {rows} images in the first column that give the style, and "
    alt += f"the generated images between them; {right}."
    white = np.full_like(conditions[:, :1], 255 if conditions.dtype == np.uint8 else 1)
    beside = (np.full((rows, 1), ""), readings), (np.zeros((rows, 1), dtype=bool), wrong)  # a style is not judged
    labels = [f"style {i + 1}" for i in range(rows)]
    blocks = [
        Block(np.concatenate([white, conditions], axis=1), ["condition"]),
        Block(np.concatenate([styles[0][:, None], images], axis=1), labels, *map(np.hstack, beside)),
    ]
    return _grid(blocks, ["", *(str(d) for d in digits)], f"{title}: {right}", alt)


def traversal(condition, images, readings, digit: int, values, labels, title: str) -> Picture:
    """A panel of Figure 5: each row moves one private dimension over `values`, all else is fixed.

    condition: (c, h, w), the image whose shared code is decoded. images: (rows, columns, c', h', w'). readings: (rows,
    columns) digits that the judge reads. digit: the condition's. values: (columns,) of the dimension. labels: a text
    for each row. Raises ValueError for shapes that do not match.
    """
    condition, images = _images("condition", np.asarray(condition)[None, None]), _images("images", images)
    rows, columns = images.shape[:2]
    _length("labels", labels, rows)
    _length("values", values, columns)
    readings, wrong, right = _read(images, readings, digit)
    first, last = f"{values[0]:.0f}", f"{values[-1]:.0f}"
    alt = f"{title}: the condition, and {rows} rows, each over {columns} values of a dimension from {first} to {last}; "
    shown = [first, *[""] * (columns - 2), last]
    white = np.full_like(condition, 255 if condition.dtype == np.uint8 else 1)
    blocks = [
        Block(np.concatenate([condition, *[white] * (columns - 1)], axis=1), ["condition"]),
        Block(images, labels, readings, wrong),
    ]
    return _grid(blocks, shown, f"{title}: {right}, {digit}", f"{alt}{right}, {digit}.")


class Panel(NamedTuple):
    """One panel of a composite: conditions in the first row, images below, and in front of them what gives the style.

    All (rows, columns, c, h, w) uint8; wrong: (rows, columns), the images that the judge reads otherwise.
    """

    title: str
    conditions: np.ndarray
    images: np.ndarray
    wrong: np.ndarray
    styles: np.ndarray | None = None


def composite(panels: Sequence[Panel | str], columns: int, alt: str) -> Picture:
    """Panels of Figure 3 or 4 side by side, as the paper prints them: an image that is read otherwise has a frame.

    A text in a panel's place is written there. Raises ValueError for images that are not uint8.
    """
    rows = math.ceil(len(panels) / columns)
    sheets = [panel if isinstance(panel, str) else _sheet(panel) for panel in panels]
    height, width = next((sheet.shape[:2] for sheet in sheets if not isinstance(sheet, str)), (1, 1))
    size = 7.4 / columns
    lines = max(1 + (panel if isinstance(panel, str) else panel.title).count("\n") for panel in panels)
    picture = Picture(7.4, rows * (size * height / width + 0.1 + 0.16 * lines), alt)
    picture.colours = 64  # hundreds of small images
    for axes, panel, sheet in zip(picture.subplots(rows, columns, squeeze=False).flat, panels, sheets, strict=False):
        axes.axis("off")
        if isinstance(sheet, str):
            axes.text(0.5, 0.5, sheet, ha="center", va="center", color=GREY, transform=axes.transAxes)
        else:
            axes.imshow(sheet, interpolation="nearest")  # half the bytes, and sharp
            axes.set_anchor("S")  # what is left is above the title
            axes.set_title(panel.title, loc="left", fontsize=STYLE["font.size"] - (1 if columns > 2 else 0))
    return picture


def _sheet(panel: Panel) -> np.ndarray:
    """A panel as one image: (height, width, 3), uint8."""
    cell = 4 + max(panel.conditions.shape[-1], panel.images.shape[-1])
    beside = 0 if panel.styles is None else 1
    rows, columns = panel.images.shape[:2]
    sheet = np.full((cell * (rows + 1) + 4, cell * (columns + beside), 3), 255, np.uint8)
    frame = np.array([int(VERMILLION[place : place + 2], 16) for place in (1, 3, 5)], np.uint8)

    def paste(image: np.ndarray, row: int, column: int, framed: bool = False) -> None:
        if image.dtype != np.uint8:
            raise ValueError(f"the images of a composite must be uint8, got {image.dtype}")
        size, top, left = image.shape[-1], cell * row + 4 * (row > 0), cell * column
        edge = (cell - size) // 2
        if framed:
            sheet[top + edge - 2 : top + edge + size + 2, left + edge - 2 : left + edge + size + 2] = frame
        pixels = np.repeat(image, 3 // len(image), axis=0).transpose(1, 2, 0)
        sheet[top + edge : top + edge + size, left + edge : left + edge + size] = pixels

    for column, image in enumerate(panel.conditions[0]):
        paste(image, 0, column + beside)
    for row in range(rows):
        if panel.styles is not None:
            paste(panel.styles[0, row], row + 1, 0)
        for column in range(columns):
            paste(panel.images[row, column], row + 1, column + beside, bool(panel.wrong[row, column]))
    return sheet


class Block(NamedTuple):
    """Rows of images of one shape, as part of a grid."""

    images: np.ndarray
    row_labels: Sequence[str] | None = None
    notes: np.ndarray | None = None
    wrong: np.ndarray | None = None


def _grid(blocks: Sequence[Block], column_labels, title: str | None, alt: str) -> Picture:
    """All blocks below one another in one Axes whose unit is an image's width; y points down."""
    columns = blocks[0].images.shape[1]
    pitches = [1 + GAP + (0 if block.notes is None else NOTE) for block in blocks]
    between = 0.3
    height = sum(len(b.images) * p for b, p in zip(blocks, pitches, strict=True)) + between * (len(blocks) - 1)
    size = min(0.9, 6.6 / columns)  # inches an image
    labelled = any(block.row_labels is not None for block in blocks)
    picture = Picture(size * columns * (1 + GAP) + 0.2 + 0.9 * labelled, size * height + 0.3 + 0.3 * bool(title), alt)
    axes = picture.subplots()
    top, ticks, labels = 0.0, [], []
    for block, pitch in zip(blocks, pitches, strict=True):
        for row in range(len(block.images)):
            for column in range(columns):
                _tile(axes, block, row, column, column * (1 + GAP), top)
            ticks.append(top + 0.5)
            labels.append(block.row_labels[row] if block.row_labels is not None else "")
            top += pitch
        top += between
    axes.set(xlim=(-0.03, columns * (1 + GAP) - GAP + 0.03), ylim=(height, -0.03), aspect="equal")
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    centres = [column * (1 + GAP) + 0.5 for column in range(columns)]
    axes.set_xticks(centres, column_labels if column_labels is not None else [""] * columns)
    axes.set_yticks(ticks, labels)
    axes.tick_params(length=0)
    if title:
        _title(axes, title)
    return picture


def _tile(axes: Axes, block: Block, row: int, column: int, left: float, top: float) -> None:
    image = block.images[row, column]
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    limits = {"cmap": "gray", "vmin": 0, "vmax": 255 if image.dtype == np.uint8 else 1} if len(image) == 1 else {}
    axes.imshow(pixels, extent=(left, left + 1, top + 1, top), interpolation="nearest", **limits)
    wrong = block.wrong is not None and bool(block.wrong[row, column])
    if wrong:
        frame = {"edgecolor": VERMILLION, "linewidth": 2.0, "facecolor": "none", "zorder": 3}
        axes.add_patch(Rectangle((left, top), 1, 1, **frame))
    if block.notes is not None:
        look = {"color": VERMILLION, "weight": "bold"} if wrong else {"color": GREY, "weight": "normal"}
        note = str(block.notes[row, column])
        axes.text(left + 0.5, top + 1.03, note, ha="center", va="top", size=STYLE["font.size"] - 1, **look)


# Codes


def quadruplet_geometry(
    codes_x, codes_y, labels, quadruplet: tuple[int, int, int], titles: Sequence[str], alt: str,
    alpha1: float = 2.0, alpha2: float = 0.8,
) -> Picture:  # fmt: skip
    """Codes of both modalities in the plane, and the three hinges of one quadruplet, in one panel for each state.

    codes_x, codes_y: (panels, n, 2) for the same pairs before and after training; row i of both is one pair.
    labels: (n,) digits of the pairs. quadruplet: rows (i, j, k): the anchor pair (x_i, y_i) with x₋ = x_j, y₋ = y_k.
    Each hinge has a line, the distance that it compares with d(x, y), and a circle of the radius that this distance
    must reach: d(x, y) + alpha1 around x and around y, d(x, y) + alpha2 around x₋. A row below the panel says by how
    much each hinge is violated. Distances are in the units of the codes.
    Raises ValueError for shapes that do not match.
    """
    codes_x, codes_y = (np.asarray(c, dtype=float) for c in (codes_x, codes_y))
    if codes_x.shape != codes_y.shape or codes_x.ndim != 3 or codes_x.shape[-1] != 2:
        raise ValueError(f"codes_x and codes_y must be (panels, n, 2), got {codes_x.shape} and {codes_y.shape}")
    panels, count = codes_x.shape[:2]
    _length("labels", labels, count)
    _length("titles", titles, panels)
    if len(quadruplet) != 3 or not all(0 <= i < count for i in quadruplet):
        raise ValueError(f"quadruplet must be three rows below {count}, got {quadruplet}")

    picture = Picture(3.6 * panels + 0.3, 5.25, alt)
    for panel, axes in enumerate(picture.subplots(1, panels, squeeze=False)[0]):
        both = codes_x[panel], codes_y[panel]
        for place, digit in enumerate(sorted({int(digit) for digit in labels})):
            rows, colour = np.asarray(labels) == digit, COLOURS[place % len(COLOURS)]
            for codes, marker in zip(both, "os", strict=True):
                axes.scatter(*codes[rows].T, marker=marker, edgecolors=colour, **HOLLOW)
                axes.scatter(*codes[rows].T, marker=f"${digit}$", s=22, color=colour, linewidths=0)
        _draw_hinges(axes, *both, quadruplet, alpha1, alpha2)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.12)
        axes.set(xlabel="first dimension of the code", ylabel="second dimension" if panel == 0 else "")
        _title(axes, titles[panel])
    named = zip("os", ("x (MNIST)", "y (SVHN)"), strict=True)
    handles = [axes.scatter([], [], marker=marker, edgecolors=GREY, label=name, **HOLLOW) for marker, name in named]
    _legend(picture, handles=handles, loc="outside upper right", ncols=2)
    return picture


HOLLOW = {"s": 70, "facecolors": "white", "linewidths": 0.8}  # a dot with room for a digit


def _draw_hinges(axes: Axes, codes_x, codes_y, quadruplet, alpha1: float, alpha2: float) -> None:
    i, j, k = quadruplet
    x, y, x_neg, y_neg = codes_x[i], codes_y[i], codes_x[j], codes_y[k]
    positive = float(np.linalg.norm(x - y))
    handles = axes.plot(*np.stack([x, y]).T, color=BLACK, linestyle="-", linewidth=2.5, zorder=3,
                        label=f"d(x, y) = {positive:.2f}, to become small")  # fmt: skip
    for name, start, end, margin, colour, dashes in (
        ("d(x, y₋)", x, y_neg, alpha1, BLUE, "--"),
        ("d(x₋, y)", y, x_neg, alpha1, VERMILLION, "-."),
        ("d(x₋, y₋)", x_neg, y_neg, alpha2, PURPLE, ":"),
    ):
        reached, needed = float(np.linalg.norm(start - end)), positive + margin
        line = {"color": colour, "linestyle": dashes, "zorder": 3}
        state = "reached" if reached >= needed else f"short by {needed - reached:.2f}"
        text = f"{name} = {reached:.2f} of {needed:.2f}: {state}"
        handles += axes.plot(*np.stack([start, end]).T, linewidth=1.8, label=text, **line)
        axes.add_patch(Circle(start, needed, fill=False, linewidth=1.0, alpha=0.7, **line))
    corners = (x, "o", (-17, 5)), (y, "s", (7, -15)), (x_neg, "o", (-20, 6)), (y_neg, "s", (7, -15))
    for name, (code, marker, offset) in zip(("x", "y", "x₋", "y₋"), corners, strict=True):
        axes.plot(*code, marker=marker, markersize=8, markeredgecolor=BLACK, markerfacecolor=BLACK, zorder=4, alpha=0.8)
        axes.annotate(name, code, xytext=offset, textcoords="offset points", size=11, weight="bold", zorder=5,
                      bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8})  # fmt: skip
    _legend(axes, handles=handles, loc="upper left", bbox_to_anchor=(0, -0.14), borderaxespad=0, handlelength=3)


# Numbers


def training_history(histories) -> Picture:
    """Every term over the epochs, a panel a term and a line a seed; but batches without negatives only if there were.

    histories: one list for each seed; in it, for each epoch, a mapping from the term's name to its mean over the
    epoch; its unit is that of `names.unit_of`.
    Raises ValueError if there is no epoch, for an unknown term, or if seeds differ in terms or length.
    """
    if not len(histories) or not len(histories[0]):
        raise ValueError("histories must hold at least one seed with at least one epoch")
    names = list(histories[0][0])
    for seed, history in enumerate(histories):
        if len(history) != len(histories[0]) or any(list(epoch) != names for epoch in history):
            raise ValueError(f"histories: seed number {seed} differs from the first in its epochs or terms")
    if not any(epoch.get("single_digit") for history in histories for epoch in history):
        names = [name for name in names if name != "single_digit"]
    epochs = np.arange(1, len(histories[0]) + 1)
    columns = min(len(names), 4)
    rows = math.ceil(len(names) / columns)
    ends = ", ".join(f"{n} {np.mean([h[0][n] for h in histories]):.3g} to {np.mean([h[-1][n] for h in histories]):.3g}"
                     for n in names)  # fmt: skip
    alt = f"Training terms over {len(epochs)} epochs for {len(histories)} seed(s), first to last: {ends}."
    picture = Picture(2.1 * columns + 0.4, 1.9 * rows + 0.2, alt)
    panels = picture.subplots(rows, columns, squeeze=False).flatten()
    for name, axes in zip(names, panels, strict=False):
        for history in histories:
            axes.plot(epochs, [epoch[name] for epoch in history], marker="o" if len(epochs) <= 20 else "", markersize=3)
        _title(axes, name)
        axes.set(xlabel="epoch", ylabel=unit_of(name))
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[len(names) :]:
        axes.remove()
    return picture


Cell = tuple[str, str]  # the column of a table and its row


def comparison(papers: Mapping[Cell, Interval | None], ours: Mapping[Cell, Interval]) -> Picture:
    """Reported and reproduced values side by side, a panel a column and a line a row: dots with intervals.

    papers, ours: cell -> its accuracy with an interval, in per cent; None or a missing cell where there is no value.
    Columns and rows are in the order of papers, then what only ours has. Raises ValueError if both are empty.
    """
    columns, rows = (list(dict.fromkeys(cell[place] for cell in [*papers, *ours])) for place in (0, 1))
    if not rows:
        raise ValueError("papers and ours are both empty: there is nothing to compare")
    series = (("paper", papers, "D", "white", BLACK, -0.16), ("ours", ours, "o", BLUE, BLUE, 0.16))
    alt = f"{', '.join(columns)}: accuracy in per cent of {len(rows)} rows, the paper's beside ours, as in the tables."
    picture = Picture(2.4 + 2.0 * len(columns), 0.42 * len(rows) + 1.0, alt)
    said = {name: {cell: value.in_full() for cell, value in of.items() if value} for name, of, *_ in series}
    picture.data = pd.DataFrame(
        {(c, name): [said[name].get((c, row), "") for row in rows] for c in columns for name in said}, index=rows
    )
    all_axes = picture.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(all_axes, columns, strict=True):
        for name, of, marker, face, edge, shift in series:
            places = [(i + shift, of[column, row]) for i, row in enumerate(rows) if of.get((column, row))]
            for place, value in places:
                axes.plot([value.low, value.high], [place, place], color=edge, linestyle="-", linewidth=1.5, zorder=2)
            axes.plot([v.centre for _, v in places], [p for p, _ in places], linestyle="none", marker=marker,
                      markerfacecolor=face, markeredgecolor=edge, markersize=5, label=name, zorder=3)  # fmt: skip
        for place in range(len(rows) - 1):
            axes.axhline(place + 0.5, color="#DDDDDD", linewidth=0.6, linestyle="-", zorder=1)
        axes.set(xlim=(0, 104), xticks=range(0, 101, 20), xlabel="accuracy, %")  # whole dots at 100
        _title(axes, column)
    all_axes[0].set_yticks(range(len(rows)), rows)
    all_axes[0].set_ylim(len(rows) - 0.5, -0.5)
    _legend(picture, handles=all_axes[0].get_legend_handles_labels()[0], loc="outside lower right", ncols=2)
    return picture


def dots(
    rows: Sequence[str],
    panels: Mapping[str, Mapping[str, Sequence[float | None]]],
    bands: Mapping[str, tuple[float, float]] | None = None,
    label: str = "%",
) -> Picture:
    """Several measurements of each row side by side: a panel each, with a dot for each of its series.

    rows: their names, from the top. panels: title -> series -> a value a row, None where there is none.
    bands: title -> (low, high), a range that is shaded in that panel. label: the unit.
    Raises ValueError for a series of another length, a band of an unknown panel, and if there is nothing to show.
    """
    if not rows or not panels:
        raise ValueError("rows and panels must not be empty: there is nothing to show")
    for title, series in panels.items():
        for name, values in series.items():
            _length(f"{title}, {name}", values, len(rows))
    unknown = sorted(set(bands or {}) - set(panels))
    if unknown:
        raise ValueError(f"there is no panel {unknown[0]!r} for a band; the panels are {sorted(panels)}")
    alt = f"{', '.join(panels)} ({label}) of {len(rows)} rows, a dot a series; the table below has the numbers."
    picture = Picture(2.4 + 2.6 * len(panels), 0.24 * len(rows) + 1.2, alt)
    picture.data = pd.DataFrame({(t, name): values for t, named in panels.items() for name, values in named.items()})
    picture.data.index = list(rows)
    all_axes = picture.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, series) in zip(all_axes, panels.items(), strict=True):
        if bands and title in bands:
            axes.axvspan(*bands[title], color="#E8E8E8", zorder=0)
        for place in range(len(rows)):
            axes.axhline(place, color="#DDDDDD", linewidth=0.6, linestyle="-", zorder=1)
        for number, (name, values) in enumerate(series.items()):
            points = [(value, i) for i, value in enumerate(values) if value is not None]
            axes.plot([v for v, _ in points], [i for _, i in points], linestyle="none", marker=MARKERS[number],
                      markerfacecolor="white" if number else COLOURS[number], markeredgecolor=COLOURS[number],
                      markersize=5, label=name, zorder=3)  # fmt: skip
        axes.set_xlabel(label)
        _title(axes, title)
        _legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.5 / (0.24 * len(rows) + 0.5)), ncols=2)
    all_axes[0].set_yticks(range(len(rows)), rows)
    all_axes[0].set_ylim(len(rows) - 0.4, -0.6)
    return picture


Line = tuple[Sequence[float], Sequence[float]]  # its points, x and y


def courses(
    panels: Mapping[str, Mapping[str, Sequence[Line]]],
    x_label: str,
    y_label: str,
    level: float | None = None,
    **scales: str,
) -> Picture:
    """Lines in panels side by side: title -> name -> the lines of that name, which share colour, dashes and marker.

    level: a height that is drawn in grey across each panel. scales: of `Axes.set`, such as xscale="log".
    Raises ValueError if there is no panel, for a panel without a line, and for a line whose x and y differ in length.
    """
    if not panels or not all(any(lines for lines in named.values()) for named in panels.values()):
        raise ValueError("panels must hold at least one, and each of them a line")
    for named in panels.values():
        for name, lines in named.items():
            for x, y in lines:
                _length(f"y of {name}", y, len(x))
    alt = f"{y_label} over {x_label}, {words.count(len(panels), 'panel')}; the table below has each line's ends."
    picture = Picture(0.6 + 2.9 * len(panels), 3.4, alt)
    picture.data = pd.DataFrame(
        {"panel": title, "line": name, f"first {x_label}": x[0], f"first {y_label}": round(float(y[0]), 2),
         f"last {x_label}": x[-1], f"last {y_label}": round(float(y[-1]), 2)}
        for title, named in panels.items() for name, lines in named.items() for x, y in lines
    )  # fmt: skip
    names = list(dict.fromkeys(name for named in panels.values() for name in named))
    all_axes = picture.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, named) in zip(all_axes, panels.items(), strict=True):
        if level is not None:
            axes.axhline(level, color=GREY, linewidth=0.8, linestyle="-", zorder=1)
        for name, lines in named.items():
            kinds = (("color", COLOURS), ("linestyle", DASHES), ("marker", MARKERS))
            look = {kind: of[names.index(name) % len(of)] for kind, of in kinds}
            for number, (x, y) in enumerate(lines):
                axes.plot(x, y, label=name if not number else None, markersize=3, linewidth=1.2, **look)
        axes.set(xlabel=x_label, **scales)
        _title(axes, title)
    all_axes[0].set_ylabel(y_label)
    handles = {h.get_label(): h for axes in all_axes for h in axes.get_lines() if h.get_label() in names}
    _legend(picture, handles=list(handles.values()), loc="outside lower center", ncols=2 if len(panels) == 1 else 4)
    return picture


def confusion(counts, row_label: str, column_label: str) -> Picture:
    """How often a row's digit is read as a column's digit.

    counts: (k, k) numbers of images, row i for digit i; the shade is the share of the row, in per cent.
    Raises ValueError for another shape or a negative count.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"counts must be square, (k, k), got {counts.shape}")
    if (counts < 0).any():
        raise ValueError("counts must not be negative")
    shares = 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(counts)
    off = np.where(np.eye(size, dtype=bool), -1, counts)
    worst = np.unravel_index(off.argmax(), off.shape)
    alt = f"{row_label} against {column_label}: {int(np.trace(counts))} of {int(counts.sum())} on the diagonal."
    if off[worst] > 0:
        alt += f" The most frequent confusion is {worst[0]} read as {worst[1]}, {int(off[worst])} times."
    picture = Picture(0.5 * size + 1.7, 0.44 * size + 0.8, alt)
    axes = picture.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 55 else BLACK if count else "#AAAAAA"
        look = {"color": colour, "weight": "bold" if row == column else "normal", "size": STYLE["font.size"] - 1}
        axes.text(column, row, str(count), ha="center", va="center", **look)
    axes.set(xticks=range(size), yticks=range(size), xlabel=column_label, ylabel=row_label)
    picture.colorbar(image, ax=axes, label="share of the row, %")
    return picture


# Doors


def _images(name: str, images) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 5 or images.shape[2] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"{name} must be (rows, columns, c, h, w) with c 1 or 3, got {images.shape}")
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"{name} must be uint8 or floats in [0, 1], got {images.dtype}")
        if not (images.min() >= 0 and images.max() <= 1):
            raise ValueError(f"{name} must lie in [0, 1], got {images.min():.3g} to {images.max():.3g}")
    return images


def _table(name: str, values, rows: int, columns: int) -> np.ndarray | None:
    if values is None:
        return None
    values = np.asarray(values)
    if values.shape != (rows, columns):
        raise ValueError(f"{name} must be ({rows}, {columns}), one an image, got {values.shape}")
    return values


def _length(name: str, values, count: int) -> None:
    if values is not None and len(values) != count:
        raise ValueError(f"{name} must have {count} entries, got {len(values)}")
