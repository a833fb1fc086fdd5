"""Small data made on the spot, for machines that have neither MNIST and SVHN nor a network.

Results on it say that the code runs; they are not evidence about the paper. Nothing here depends on what the machine
has installed: the handwritten digits ship with scikit-learn and the typeface ships with Pillow.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HANDWRITTEN_TRAIN = 1400  # of 1,797; the rest is the test side
RENDERED = {"train": 2000, "test": 400}
SIDE = 32  # pixels of a rendered house number


def handwritten_digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """MNIST's place: split -> images (n, 1, 28, 28) uint8 and labels (n,) int64.

    scikit-learn's 8 x 8 scans are enlarged smoothly to 20 x 20 and centred with MNIST's margin of 4. The file runs
    writer by writer, so it is cut at one place: at most one writer is on both sides.
    """
    from sklearn.datasets import load_digits  # here, because it takes seconds and only the stand-in needs it

    small = load_digits()
    grey = np.rint(small.images * (255 / 16)).astype(np.uint8)
    # Pillow resizes bytes in fixed-point arithmetic: the same pixels come out on every processor.
    large = np.stack([np.asarray(Image.fromarray(scan).resize((20, 20), Image.Resampling.BICUBIC)) for scan in grey])
    images = np.pad(large, ((0, 0), (4, 4), (4, 4)))[:, None]
    labels = small.target.astype(np.int64)
    cut = HANDWRITTEN_TRAIN
    return {"train": (images[:cut], labels[:cut]), "test": (images[cut:], labels[cut:])}


def rendered_house_numbers(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """SVHN's place: split -> images (n, 3, 32, 32) uint8 and labels (n,) int64, a function of the seed.

    The label is the digit in the middle; other digits may be cut off at the sides, as in SVHN's crops.
    """
    random = np.random.RandomState(seed)
    return {split: _render(count, random) for split, count in RENDERED.items()}


def _render(count: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    labels = random.permutation(np.arange(count) % 10)
    images = np.stack([_house_number(int(label), random) for label in labels])
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels.astype(np.int64)


def _house_number(label: int, random: np.random.RandomState) -> np.ndarray:
    """One crop (32, 32, 3) uint8: a graded wall, the digit in the middle, neighbours, blur and noise."""
    wall, ink = _colours(random)
    picture = Image.fromarray(wall)
    size, bold = random.randint(26, 38), random.randint(0, 2)
    squeeze, angle = random.uniform(0.7, 1.0), random.uniform(-9, 9)
    centre = np.array([SIDE / 2, SIDE / 2]) + random.uniform(-2, 2, size=2)
    step = 0.58 * size * squeeze + random.uniform(1, 4)  # from one digit's centre to the next one's
    neighbours = random.randint(0, 10, size=2)
    present = random.uniform(size=2) < 0.6
    for place, digit, drawn in ((-1, neighbours[0], present[0]), (1, neighbours[1], present[1]), (0, label, True)):
        if drawn:
            glyph = _glyph(int(digit), size, bold)
            glyph = glyph.resize((max(1, round(glyph.width * squeeze)), glyph.height), Image.Resampling.BILINEAR)
            glyph = glyph.rotate(angle, Image.Resampling.BILINEAR, expand=True)
            corner = np.rint(centre + (place * step, 0) - np.array(glyph.size) / 2).astype(int)
            picture.paste(ink, (int(corner[0]), int(corner[1])), glyph)
    picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 1.1)))
    noise = random.standard_normal((SIDE, SIDE, 3)) * random.uniform(1, 10)
    return np.clip(np.rint(np.asarray(picture) + noise), 0, 255).astype(np.uint8)


def _colours(random: np.random.RandomState) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A wall (32, 32, 3) uint8, graded along one axis, and an ink that is clearly lighter or darker than it."""
    first = np.clip(random.uniform(20, 235) + random.uniform(-60, 60, size=3), 0, 255)
    second = np.clip(first + random.uniform(-45, 45, size=3), 0, 255)
    ramp = np.linspace(0, 1, SIDE)[:, None, None]
    wall = np.broadcast_to(first + ramp * (second - first), (SIDE, SIDE, 3))
    if random.uniform() < 0.5:
        wall = wall.swapaxes(0, 1)
    middle = (first + second) / 2
    direction = 1 if middle.mean() < 128 else -1
    ink = np.clip(middle + direction * random.uniform(70, 190) + random.uniform(-30, 30, size=3), 0, 255)
    return np.ascontiguousarray(wall).astype(np.uint8), tuple(int(channel) for channel in ink)


@cache
def _glyph(digit: int, size: int, bold: int) -> Image.Image:
    """The digit's mask, 8 bits a pixel, cut to its outline."""
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = font.getbbox(str(digit), stroke_width=bold)
    mask = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(mask).text((-left, -top), str(digit), fill=255, font=font, stroke_width=bold)
    return mask
