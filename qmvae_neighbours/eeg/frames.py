"""From an electroencephalogram to small images: clipped samples, band powers, a flat map of the head, frames.

Follows section 4.4 of the thesis behind chapter B6, which follows Bashivan et al. 2016 (arXiv:1511.06448). Everything
that is fitted (limits, means, deviations) is fitted on the rows that the caller passes, and applied to others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CloughTocher2DInterpolator
from scipy.signal import stft
from scipy.spatial import Delaunay

RATE = 128.0  # samples a second, of the eye-state recording and of DEAP's preprocessed files
BANDS = {"alpha": (8.0, 13.0), "beta": (13.0, 30.0), "gamma": (30.0, 45.0)}  # hertz, the edges of the thesis
SIDE = 32  # pixels of a frame
HALF_WIDTH = np.radians(92.0)  # of the map: the outer ring of electrodes touches the frame

# Name -> (angle from the vertex Cz, angle round it from the right ear towards the nose), in degrees, on a sphere that
# stands for the head. The rule is that of the 10-10 system (Oostenveld and Praamstra 2001): the outer ring has an
# electrode every 18 degrees, the cross over Cz one every 23, and those between divide the circle through three of them.
# The angles are those that BioSemi publishes for its caps, in whole degrees; a test has them in its convention.
ELECTRODES = {
    "Fp1": (92, 108), "AF3": (74, 115), "F7": (92, 144), "F3": (60, 129), "FC1": (32, 135), "FC5": (72, 159),
    "T7": (92, 180), "C3": (46, 180), "CP1": (32, 225), "CP5": (72, 201), "P7": (92, 216), "P3": (60, 231),
    "PO3": (74, 245), "O1": (92, 252), "Oz": (92, 270), "Pz": (46, 270), "Cz": (0, 0), "Fz": (46, 90),
    "Fp2": (92, 72), "AF4": (74, 65), "F8": (92, 36), "F4": (60, 51), "FC2": (32, 45), "FC6": (72, 21),
    "T8": (92, 0), "C4": (46, 0), "CP2": (32, 315), "CP6": (72, 339), "P8": (92, 324), "P4": (60, 309),
    "PO4": (74, 295), "O2": (92, 288),
}  # fmt: skip


# The map


def positions(names: Sequence[str]) -> np.ndarray:
    """Electrodes on the unit sphere: (n, 3), x to the right ear, y to the nose, z to the vertex.

    Raises ValueError for an electrode that is not in ELECTRODES."""
    unknown = [name for name in names if name not in ELECTRODES]
    if unknown:
        raise ValueError(f"no position is known for electrode {unknown[0]!r}; add it to ELECTRODES")
    polar, round_ = np.radians(np.array([ELECTRODES[name] for name in names], dtype=float)).T
    return np.stack([np.sin(polar) * np.cos(round_), np.sin(polar) * np.sin(round_), np.cos(polar)], axis=1)


def azimuthal_equidistant(points: np.ndarray) -> np.ndarray:
    """The plane map of directions (..., 3) that keeps distance and bearing from the vertex: (..., 2), in radians.

    A direction at the angle a from the vertex goes to the distance a from the origin, in the same bearing.
    Raises ValueError for the zero vector, and for the direction opposite the vertex, which has no bearing."""
    points = np.asarray(points, dtype=float)
    across = np.hypot(points[..., 0], points[..., 1])
    if ((across == 0) & (points[..., 2] <= 0)).any():
        raise ValueError("the zero vector and the direction opposite the vertex have no place on the map")
    angle = np.arctan2(across, points[..., 2])  # precise near the vertex, where arccos is not
    ratio = np.divide(angle, across, out=np.ones_like(angle), where=across > 0)
    return points[..., :2] * ratio[..., None]


def pixel_grid(side: int = SIDE) -> np.ndarray:
    """Centres of a frame's pixels on the map: (side, side, 2) in radians, the nose above, the right ear right."""
    step = 2 * HALF_WIDTH / side
    axis = -HALF_WIDTH + step * (np.arange(side) + 0.5)
    return np.stack(np.meshgrid(axis, -axis), axis=-1)


def inside(places: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Which pixels lie in the convex hull of the places (n, 2): (side, side) booleans."""
    return Delaunay(places).find_simplex(pixel_grid(side)) >= 0


def interpolate(values: np.ndarray, places: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Values (..., n) at places (n, 2) -> (..., side, side), by Clough and Tocher's smooth piecewise cubic.

    Outside the hull of the places the scheme is not defined, and the value is 0: the mean, for standardised values."""
    flat = np.asarray(values, dtype=float).reshape(-1, len(places)).T
    # Tight, so that the numerical estimate of gradients leaves a linear map: frames do not depend on their company.
    surface = CloughTocher2DInterpolator(places, flat, fill_value=0.0, tol=1e-10, maxiter=2000)
    return np.moveaxis(surface(pixel_grid(side)), -1, 0).reshape(*np.shape(values)[:-1], side, side)


# The signal


class Limits(NamedTuple):
    """Lowest and highest believable sample of each channel, (channels,) each, in microvolts."""

    low: np.ndarray
    high: np.ndarray

    def clip(self, samples: np.ndarray) -> np.ndarray:
        """Samples (time, channels), with spikes cut off at the limits."""
        return np.clip(samples, self.low, self.high)


def robust_limits(samples: np.ndarray, deviations: float = 6.0) -> Limits:
    """Median plus and minus so many standard deviations of samples (time, channels).

    The deviation is 1.4826 times the median absolute one: equal to the standard deviation for a normal distribution,
    and untouched by a few spikes of any height. Of a channel that is flat most of the time, whose median absolute
    deviation is 0, only the samples off the median count; one that is flat all the time is not limited."""
    middle = np.median(samples, axis=0)
    apart = np.abs(samples - middle)
    spread = np.median(apart, axis=0)
    for channel in np.flatnonzero(spread == 0):
        spread[channel] = np.median(apart[apart[:, channel] > 0, channel]) if apart[:, channel].any() else np.inf
    spread *= deviations * 1.4826
    return Limits(middle - spread, middle + spread)


def log_band_powers(
    samples: np.ndarray, window: int, hop: int, rate: float = RATE, bands: Mapping[str, tuple[float, float]] = BANDS
) -> np.ndarray:
    """Natural logarithm of the power in each band, window by window: (windows, bands, channels).

    samples: (time, channels) in microvolts; window, hop: in samples. The short-time Fourier transform has Hann's
    window, takes the mean out of each window, and pads nothing: window k sees samples k * hop to k * hop + window only.
    A band holds its lower edge and not its upper one. A sine of amplitude A has the power A²/2, at half the rate and at
    0 Hz the mean of its squares. The logarithm is of the power plus 1e-6 square microvolts, so silence stays finite.
    Raises ValueError for fewer samples than a window, a hop that is none, or a band without a frequency."""
    samples = np.asarray(samples, dtype=float)
    if not 1 <= hop <= window <= len(samples):
        raise ValueError(f"needs 1 <= hop <= window <= samples, got {hop}, {window} and {len(samples)}")
    frequencies, _, spectrum = stft(
        samples, rate, window="hann", nperseg=window, noverlap=window - hop, detrend="constant", boundary=None,
        padded=False, axis=0, scaling="psd",
    )  # fmt: skip
    twins = np.full(len(frequencies), 2.0)
    twins[[0, -1] if window % 2 == 0 else 0] = 1.0  # 0 Hz and half the rate have no negative frequency
    density = twins[:, None, None] * np.abs(spectrum) ** 2  # (frequencies, channels, windows)
    powers = []
    for name, (low, high) in bands.items():
        chosen = (frequencies >= low) & (frequencies < high)
        if not chosen.any():
            raise ValueError(f"band {name}, {low:g} to {high:g} Hz, holds no frequency of a window of {window} samples")
        powers.append(density[chosen].sum(axis=0) * (rate / window))
    return np.log(np.stack(powers).transpose(2, 0, 1) + 1e-6)


class Standard(NamedTuple):
    """Mean and standard deviation of each feature: arrays of the features' shape."""

    mean: np.ndarray
    deviation: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        """(values - mean) / deviation, for values (n, *features)."""
        return (values - self.mean) / self.deviation


def standard_of(values: np.ndarray) -> Standard:
    """The Standard of values (n, *features); a feature that does not vary keeps its unit."""
    deviation = values.std(axis=0)
    return Standard(values.mean(axis=0), np.where(np.ptp(values, axis=0) > 0, deviation, 1.0))


def frames(standardised: np.ndarray, names: Sequence[str], side: int = SIDE, reach: float = 3.0) -> np.ndarray:
    """Standardised log powers (..., 3, electrodes) -> images (..., 3, side, side), float32 in [0, 1].

    The mean is 0.5, `reach` standard deviations below and above it are 0 and 1, and beyond that it is clipped."""
    images = interpolate(standardised, azimuthal_equidistant(positions(names)), side)
    return np.clip(0.5 + images / (2 * reach), 0.0, 1.0).astype(np.float32)


# Time


@dataclass(frozen=True)
class Cut:
    """How a recording is cut. window, hop: of frames, in samples; length: frames in a sequence; blocks: of time."""

    window: int = 128
    hop: int = 32
    length: int = 4
    blocks: int = 4

    @property
    def span(self) -> int:
        """Samples that a sequence sees."""
        return self.window + (self.length - 1) * self.hop

    def block_spans(self, samples: int) -> list[tuple[int, int]]:
        """First sample and end of each block. Blocks are equally long; between two lie `span` samples of nobody.

        Raises ValueError where a block would not hold one sequence."""
        each = (samples - self.span * (self.blocks - 1)) // self.blocks
        if each < self.span:
            raise ValueError(f"{samples} samples are too few for {self.blocks} blocks of sequences of {self.span}")
        return [(number * (each + self.span), number * (each + self.span) + each) for number in range(self.blocks)]

    def windows(self, start: int, stop: int) -> np.ndarray:
        """First samples of the windows in [start, stop)."""
        return np.arange(start, stop - self.window + 1, self.hop)

    def sequences(self, count: int) -> np.ndarray:
        """Which of a block's `count` windows make up each of its sequences: (sequences, length)."""
        return np.arange(count - self.length + 1)[:, None] + np.arange(self.length)

    def labels(self, states: np.ndarray, start: int, stop: int) -> np.ndarray:
        """The state, 0 or 1, of more than half of a sequence's samples, for each sequence: (n,); a tie counts as 0."""
        first = self.windows(start, stop)[: len(self.windows(start, stop)) - self.length + 1]
        closed = np.concatenate([[0], np.cumsum(states)])
        return (2 * (closed[first + self.span] - closed[first]) > self.span).astype(np.int64)
