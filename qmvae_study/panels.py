"""The image panels of Figures 3 to 5, made when a run is judged: conditions chosen by rule, and stored as PNG.

A record names the files of its panels, the positions of the images that were chosen, and the digit that the judge
reads in every generated image.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from qmvae_core.data import Digits
from qmvae_core.draws import generator_for
from qmvae_core.files import replacing
from qmvae_study.evidence.pictures import ROWS, SWEEP
from qmvae_study.oracles import DigitClassifier


@torch.no_grad()
def make_panels(
    model: nn.Module,
    oracles: Mapping[str, DigitClassifier],
    test: Mapping[str, Digits],
    seed: int,
    folder: Path,
    name: str,
) -> dict[str, dict[str, dict]]:
    """Write all panels of a trained model and return what a record keeps of them: kind -> direction -> panel.

    kinds: "cross_generation" (Figure 3), and for a target with a private code "transfer" (4) and "traversal" (5).
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, dict]] = {kind: {} for kind in KINDS}
    for source, target in permutations(test, 2):
        for kind, make in KINDS.items():
            if kind != "cross_generation" and not model.config.modalities[target].private:
                continue
            generator = generator_for(seed, "panel", kind, source, target)
            rows, about = make(model, source, target, test, generator)
            files = {}
            for part, images in rows.items():
                files[part] = f"{name}-{kind}-{source}-to-{target}-{part}.png"
                save_panel(folder / files[part], images)
            read = [oracles[target].predict(row).tolist() for row in rows["generated"]]
            found[kind][f"{source}->{target}"] = {"files": files, **about, "read": read}
    return {kind: panels for kind, panels in found.items() if panels}


def _cross_generation(
    model: nn.Module, source: str, target: str, test: Mapping[str, Digits], generator: torch.Generator
) -> tuple[dict[str, Tensor], dict]:
    """Each row shares one private code from the prior; one code z a condition, by the model's test code.

    A target without private codes would have equal rows: there each row is a draw of z instead. `rows` says which.
    """
    chosen = nth_of_each_digit(test[source])
    conditions = test[source].batch(chosen)
    posterior = model.encode_shared({source: conditions})
    private = model.config.modalities[target].private
    if private and model.config.test_code == "mean":
        codes = [posterior.mean] * ROWS
    elif private:
        codes = [model.sample_posterior(posterior, generator)] * ROWS
    else:
        codes = [model.sample_posterior(posterior, generator) for _ in range(ROWS)]
    styles = model.sample_private(target, ROWS, generator)
    images = torch.stack([model.decode(target, z, h.expand(len(z), -1)) for z, h in zip(codes, styles, strict=True)])
    rows = {"rows": "draws of h" if private else "draws of z"}
    return {"conditions": conditions[None], "generated": images}, _about(test[source], chosen) | rows


def _transfer(
    model: nn.Module, source: str, target: str, test: Mapping[str, Digits], generator: torch.Generator
) -> tuple[dict[str, Tensor], dict]:
    """Column: the digit of an image of the source; row: the style of an image of the target; codes by their means."""
    chosen, styled = nth_of_each_digit(test[source]), nth_of_each_digit(test[target], 1)
    conditions, styles = test[source].batch(chosen), test[target].batch(styled)
    rows = [model.transfer((source, conditions), (target, style.expand(len(chosen), -1, -1, -1))) for style in styles]
    about = _about(test[source], chosen) | {"style_positions": styled.tolist()}
    return {"conditions": conditions[None], "styles": styles[None], "generated": torch.stack(rows)}, about


def _traversal(
    model: nn.Module, source: str, target: str, test: Mapping[str, Digits], generator: torch.Generator
) -> tuple[dict[str, Tensor], dict]:
    """Row: one private dimension of the target over SWEEP, all others at the prior's mean; z of one source image."""
    chosen = torch.zeros(1, dtype=torch.long, device=test[source].labels.device)
    condition = test[source].batch(chosen)
    code = model.encode_shared({source: condition}).mean.expand(len(SWEEP), -1)
    values = torch.tensor(SWEEP, dtype=code.dtype, device=code.device)
    rows = []
    for dimension in range(model.config.modalities[target].private):
        styles = torch.zeros(
            (len(SWEEP), model.config.modalities[target].private), dtype=code.dtype, device=code.device
        )
        styles[:, dimension] = values
        rows.append(model.decode(target, code, styles))
    return {"conditions": condition[None], "generated": torch.stack(rows)}, _about(test[source], chosen)


KINDS = {"cross_generation": _cross_generation, "transfer": _transfer, "traversal": _traversal}


def nth_of_each_digit(digits: Digits, n: int = 0) -> Tensor:
    """What panels show, by rule: the n-th image of each digit 0 to 9 in file order, or its last; (10,) positions."""
    places = [(digits.labels == digit).nonzero()[:, 0] for digit in range(10)]
    return torch.stack([each[min(n, len(each) - 1)] for each in places])


def _about(digits: Digits, chosen: Tensor) -> dict:
    return {"positions": chosen.tolist(), "digits": digits.labels[chosen].tolist()}


def save_panel(path: Path, images: Tensor) -> None:
    """Write images (rows, columns, c, h, w) in [0, 1] as one PNG without gaps, atomically."""
    rows, columns, channels, height, width = images.shape
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    sheet = pixels.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels).numpy()
    with replacing(path) as part:
        Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet).save(part, format="PNG")
