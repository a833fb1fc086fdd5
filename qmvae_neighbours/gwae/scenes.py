"""Images that are rendered here: scenes whose factors are known, and letters that are no digits; and the DCI scores.

Source of the scores: Eastwood and Williams, "A framework for the quantitative evaluation of disentangled
representations", ICLR 2018. Nothing here depends on what the machine has installed: the typeface ships with Pillow.
"""

from __future__ import annotations

import colorsys
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

SIDE = 20  # of a scene, in pixels
FINER = 4  # a pixel is the mean of FINER x FINER points
HORIZON = 3.0  # where the wall ends and the floor begins, in pixels below the middle of the image
SHAPES = ("square", "disc", "triangle")
HUES = tuple(i / 6 for i in range(6))  # red, yellow, green, cyan, blue, magenta: places on a circle
LIGHT = {"wall hue": 0.6, "floor hue": 0.35, "figure hue": 1.0}  # so that a figure is seen before a wall of its own hue
# Factor -> its values. Size and place are in pixels, the place from the middle.
FACTORS = {
    **dict.fromkeys(LIGHT, HUES),
    "size": (2.25, 3.25, 4.25),
    "place": (-3.75, -1.25, 1.25, 3.75),
    "shape": tuple(range(len(SHAPES))),
}
LETTERS = "ACEFGHJKMNPRTUVWXYadefhkmnrtuvwxy"  # without those that can be read as a digit, such as O, l, S and Z


def scenes() -> tuple[Tensor, Tensor]:
    """All 7,776 scenes, (n, 3, 20, 20) uint8, and their factors, (n, 6) places in FACTORS' values, the last fastest."""
    sizes = [len(values) for values in FACTORS.values()]
    factors = torch.cartesian_prod(*(torch.arange(size) for size in sizes))
    colours = {name: [colorsys.hsv_to_rgb(hue, 1.0, light) for hue in HUES] for name, light in LIGHT.items()}
    values = [torch.tensor(known)[factors[:, i]] for i, known in enumerate((FACTORS | colours).values())]
    images = torch.cat([render(*part) for part in zip(*(value.split(500) for value in values), strict=True)])
    return (255 * images).round().to(torch.uint8), factors


def render(wall: Tensor, floor: Tensor, figure: Tensor, size: Tensor, place: Tensor, shape: Tensor) -> Tensor:
    """Scenes (n, 3, 20, 20) in [0, 1]: a figure before a wall and a floor, with smoothed edges.

    wall, floor, figure: colours (n, 3); the others (n,). size: half the side of the square. The disc and the triangle
    have the square's area, so that size is no hint of the shape. Raises ValueError for no place in SHAPES.
    """
    if not all(0 <= int(value) < len(SHAPES) for value in shape):
        raise ValueError(f"shape must be 0 to {len(SHAPES) - 1}, a place in {SHAPES}, got {shape.unique().tolist()}")
    points = (torch.arange(SIDE * FINER) + 0.5) / FINER - SIDE / 2
    size, place = size[:, None, None], place[:, None, None]
    x, y = points - place, points[:, None]
    inner = size * math.sqrt(4 / (3 * math.sqrt(3)))  # of the circle in the triangle, whose area is 3 sqrt(3) inner²
    square, disc = torch.maximum(x.abs(), y.abs()) <= size, x.square() + y.square() <= 4 * size.square() / math.pi
    triangle = (y <= inner) & (math.sqrt(3) * x.abs() - y <= 2 * inner)  # upright, its centre of gravity in the middle
    chosen = torch.stack([square, disc, triangle])[shape.long(), torch.arange(len(shape))]
    covered = F.avg_pool2d(chosen[:, None].float(), FINER)
    wall, floor, figure = (colour[..., None, None] for colour in (wall, floor, figure))
    behind = torch.where(y[::FINER] < HORIZON, wall, floor)
    return torch.lerp(behind, figure, covered)


def letters(count: int, seed: int) -> Tensor:
    """White letters on black, laid out like MNIST's digits: (count, 1, 28, 28) uint8.

    Each is turned by up to 15 degrees, of one of four weights, scaled into 20 x 20 pixels and centred. The digits'
    strokes are a pen's and these are a typeface's: easier to tell apart than one hand's letters from its digits.
    """
    random = np.random.RandomState(seed)
    return torch.from_numpy(np.stack([_letter(random) for _ in range(count)]))[:, None]


def _letter(random: np.random.RandomState) -> np.ndarray:
    letter, weight, angle = LETTERS[random.randint(len(LETTERS))], random.randint(0, 4), random.uniform(-15, 15)
    font = ImageFont.load_default(size=60)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(letter, stroke_width=weight))
    mask = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(mask).text((-left, -top), letter, fill=255, font=font, stroke_width=weight)
    mask = mask.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    mask = mask.crop(mask.getbbox())
    scale = 20 / max(mask.size)
    mask = mask.resize([max(1, round(scale * length)) for length in mask.size], Image.Resampling.BOX)
    canvas = Image.new("L", (28, 28))
    canvas.paste(mask, ((28 - mask.width) // 2, (28 - mask.height) // 2))
    return np.asarray(canvas)


class DCI(NamedTuple):
    """Scores in [0, 1], 1 the best: each dimension has one factor, each factor one dimension, all can be read off."""

    disentanglement: float
    completeness: float
    informativeness: float


def disentanglement(importance: Tensor) -> float:
    """How far each dimension of the code is about one factor alone, in [0, 1].

    importance: R (dimensions, factors), none negative: how much the prediction of a factor rests on a dimension. With
    P_ik = R_ik / sum_k R_ik it is the sum over i of w_i (1 - H(P_i) / ln factors), w_i the dimension's part of all R.
    """
    weights = importance.sum(dim=1) / importance.sum()
    return float((weights * (1 - _entropy(importance) / math.log(importance.shape[1]))).sum())


def completeness(importance: Tensor) -> float:
    """How far each factor lies in one dimension alone: the mean over columns of importance of 1 - H(P_k) / ln rows."""
    return float((1 - _entropy(importance.T) / math.log(importance.shape[0])).mean())


def _entropy(rows: Tensor) -> Tensor:
    """Entropy in nats of each row divided by its sum; a row of zeros, which has no entropy, counts as spread evenly."""
    sums = rows.sum(dim=1, keepdim=True)
    parts = torch.where(sums > 0, rows / sums.clamp(min=1e-300), 1 / rows.shape[1])
    return -torch.xlogy(parts, parts).sum(dim=1)


def dci(codes: Tensor, factors: Tensor, seed: int, trees: int = 20) -> tuple[DCI, Tensor, Tensor]:
    """The scores of codes (n, dimensions) against factors (n, k) of integers, R (dimensions, k), and the shares right.

    A random forest predicts each factor from the code. R is its drop of impurity by dimension; every split looks at
    all dimensions, since a split among a few would make unneeded ones important. The shares right, (k,),
    are of the half of the rows that was not fitted on, drawn by the seed; informativeness is their mean.
    Raises ValueError where a factor has one value or the code one dimension: H / ln 1 is not defined.
    """
    if codes.shape[1] < 2 or factors.shape[1] < 2:
        raise ValueError(f"DCI needs two or more dimensions and factors, got {codes.shape[1]} and {factors.shape[1]}")
    constant = [k for k in range(factors.shape[1]) if len(factors[:, k].unique()) < 2]
    if constant:
        raise ValueError(f"factor {constant[0]} has one value only, so nothing can be about it; leave it out")
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))
    fit, judge = order.tensor_split(2)
    columns, right = [], []
    for k in range(factors.shape[1]):
        forest = RandomForestClassifier(trees, max_features=None, random_state=seed)
        forest.fit(codes[fit].double().numpy(), factors[fit, k].numpy())
        columns.append(torch.from_numpy(forest.feature_importances_))
        right.append(forest.score(codes[judge].double().numpy(), factors[judge, k].numpy()))
    importance = torch.stack(columns, dim=1)
    scores = DCI(disentanglement(importance), completeness(importance), float(np.mean(right)))
    return scores, importance, torch.tensor(right)
