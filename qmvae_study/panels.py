"""The image panels of Figures 3 to 5, made when a run is judged: conditions chosen by rule, and stored as PNG.

A record names the files of its panels, the positions of the images that were chosen, and the digit that the judge
reads in every generated image.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from qmvae_core.data import Digits
from qmvae_core.evaluation import Context
from qmvae_core.files import file_hash, replacing
from qmvae_study.evidence.pictures import ROWS, SWEEP
from qmvae_study.text import TEXT, written


@torch.no_grad()
def make_panels(of: Context, folder: Path, name: str) -> dict[str, dict[str, dict]]:
    """Write all panels of a trained model and return what a record keeps of them: kind -> direction -> panel.

    kinds: "cross_generation" (Figure 3), and for a target with a private code "transfer" (4) and "traversal" (5), of
    modalities that are images; and where there are others, "triples".
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, dict]] = {kind: {} for kind in KINDS}
    pictured = [each for each, digits in of.judged.items() if digits.images.dim() == 4]
    for direction, (source, target) in of.directions.items():
        for kind, make in KINDS.items() if {source, target} <= set(pictured) else ():
            if kind != "cross_generation" and target not in of.private:
                continue
            rows, about = make(of, source, target)
            files = {part: f"{name}-{kind}-{source}-to-{target}-{part}.png" for part in rows}
            for part, images in rows.items():
                save_panel(folder / files[part], images)
            hashes = {part: file_hash(folder / file) for part, file in files.items()}
            read = [of.judges[target].predict(row).tolist() for row in rows["generated"]]
            found[kind][direction] = {"files": files, "sha256": hashes, **about, "read": read}
    if len(pictured) < len(of.judged):
        found["triples"] = {
            given: _triple(of, images, digits, pictured, folder, f"{name}-triples-{given}")
            for given, images, digits in _triples(of)
        }
    return {kind: panels for kind, panels in found.items() if panels}


def _triples(of: Context) -> Iterator[tuple[str, dict[str, Tensor], Tensor]]:
    """What is given, "mnist+text", the ten matching observations of each modality, and the digits of what is given.

    Given are the first observations of each digit, and the others are generated from them, as for the tables; of
    "prior" all are generated, and the digits are those that are read in the first modality.
    """
    model, rows = of.model, {name: nth_of_each_digit(digits) for name, digits in of.judged.items()}
    conditions = {name: of.judged[name].batch(index) for name, index in rows.items()}
    sizes = range(1, len(rows)) if model.has_joint_code else (1,)
    for names in (names for size in sizes for names in combinations(rows, size)):
        given, generator = {name: conditions[name] for name in names}, of.generator("panel", "triples", *names)
        made = {name: given.get(name) for name in rows} | {
            name: model.generate_from(given, name, generator) for name in rows if name not in given
        }
        yield "+".join(names), made, of.judged[names[0]].labels[rows[names[0]]]
    made = model.generate(10, of.generator("panel", "triples"))
    first = next(iter(made))
    yield "prior", made, of.judges[first].predict(made[first])


def _triple(of: Context, made: dict[str, Tensor], digits: Tensor, pictured: list[str], folder: Path, name: str) -> dict:
    """Write the images of a panel, one file a modality, and return what a record keeps of it, with the texts."""
    files = {part: f"{name}-{part}.png" for part in pictured}
    for part, file in files.items():
        save_panel(folder / file, made[part][None])
    return {
        "files": files,
        "sha256": {part: file_hash(folder / file) for part, file in files.items()},
        "digits": digits.tolist(),
        "read": [of.judges[part].predict(values).tolist() for part, values in made.items()],
        "texts": written(made[TEXT]) if TEXT in made else [],
    }


Made = tuple[dict[str, Tensor], dict]  # part -> images (rows, columns, c, h, w), and what the record says of them


def _cross_generation(of: Context, source: str, target: str) -> Made:
    """Each row shares one private code from the prior; one code z a condition, by the model's test code.

    A target without private codes would have equal rows: there each row is a draw of z instead. `rows` says which.
    """
    model, generator = of.model, of.generator("panel", "cross_generation", source, target)
    conditions, about = _conditions(of.judged[source])
    posterior = model.encode_shared({source: conditions})
    has_private = target in of.private
    if not has_private:
        codes = [model.sample_posterior(posterior, generator) for _ in range(ROWS)]
    else:
        mean = model.config.test_code == "mean"
        codes = [posterior.mean if mean else model.sample_posterior(posterior, generator)] * ROWS
    styles = model.sample_private(target, ROWS, generator)
    images = torch.stack([model.decode(target, z, h.expand(len(z), -1)) for z, h in zip(codes, styles, strict=True)])
    about["rows"] = "draws of h" if has_private else "draws of z"
    return {"conditions": conditions[None], "generated": images}, about


def _transfer(of: Context, source: str, target: str) -> Made:
    """Column: the digit of an image of the source; row: the style of an image of the target; codes by their means."""
    styled = nth_of_each_digit(of.judged[target], 1)
    (conditions, about), styles = _conditions(of.judged[source]), of.judged[target].batch(styled)
    rows = [of.model.transfer((source, conditions), (target, style.expand(10, -1, -1, -1))) for style in styles]
    parts = {"conditions": conditions[None], "styles": styles[None], "generated": torch.stack(rows)}
    return parts, about | {"style_positions": styled.tolist()}


def _traversal(of: Context, source: str, target: str) -> Made:
    """Row: one private dimension of the target over SWEEP, all others at the prior's mean; z of one source image."""
    condition, about = _conditions(of.judged[source], torch.zeros(1, dtype=torch.long))
    code = of.model.encode_shared({source: condition}).mean.expand(len(SWEEP), -1)
    values = torch.tensor(SWEEP, dtype=code.dtype, device=code.device)
    one_hot = torch.eye(of.model.config.modalities[target].private, dtype=code.dtype, device=code.device)
    rows = [of.model.decode(target, code, values[:, None] * dimension) for dimension in one_hot]
    return {"conditions": condition[None], "generated": torch.stack(rows)}, about


KINDS = {"cross_generation": _cross_generation, "transfer": _transfer, "traversal": _traversal}


def nth_of_each_digit(digits: Digits, n: int = 0) -> Tensor:
    """What panels show, by rule: the n-th image of each digit 0 to 9 in file order, or its last; (10,) positions."""
    places = [(digits.labels == digit).nonzero()[:, 0] for digit in range(10)]
    return torch.stack([each[min(n, len(each) - 1)] for each in places])


def _conditions(digits: Digits, chosen: Tensor | None = None) -> tuple[Tensor, dict]:
    """The images at the chosen positions, by default the first of each digit, and what a record says of them."""
    chosen = nth_of_each_digit(digits) if chosen is None else chosen.to(digits.labels.device)
    return digits.batch(chosen), {"positions": chosen.tolist(), "digits": digits.labels[chosen].tolist()}


def save_panel(path: Path, images: Tensor) -> None:
    """Write images (rows, columns, c, h, w) in [0, 1] as one PNG without gaps, atomically."""
    rows, columns, channels, height, width = images.shape
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    sheet = pixels.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels).numpy()
    with replacing(path) as part:
        Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet).save(part, format="PNG")
