"""The harness of reference [14], MMVAE's public code (Shi et al. 2019), by which the paper says that it measures.

Its judges are `oracles.PublishedConfig`. Here are its two measures, as metrics of the records; where the paper departs
from that code, they follow the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qmvae_core.data import tuple_indices
from qmvae_core.evaluation import Context, Judge, all_rows, cross_generated, one_round, share, shared_posteriors
from qmvae_core.models import TEST_CODES

SEEDS = (0, 1, 2)  # of the judges
JUDGES, PROBE = "published_judges", "published_probe"  # the names of the metrics
ROUNDS = 3  # of pairs whose joint codes the probe sees, drawn anew in each pass; all thirty would be encoded in minutes
PASSES = 300  # over those rounds: as many steps as thirty epochs of thirty rounds
BATCH, RATE = 256, 1e-3


@torch.no_grad()
def cross_generation(of: Context, panel: Mapping[int, Mapping[str, Judge]]) -> dict[str, dict]:
    """Table 1 by several judges: their seed -> direction -> test code -> "images" and "pairs", a `share` of each.

    panel: seed -> judges. They read the images that our judges read. "images": all judged images of the source are
    conditions. "pairs": those that occur in pairs, each once, which gives digits the weights that they have in the
    paper's 300,000 test pairs, each condition of which occurs thirty times.
    """
    found: dict[str, dict] = {str(seed): {} for seed in panel}
    for direction, (source, target) in of.directions.items():
        labels = {name: of.judged[name].labels for name in (source, target)}
        paired = tuple_indices(labels, rounds=1)[source].long()
        for code in TEST_CODES:
            generator = of.generator("cross", direction, code)
            images = cross_generated(of.model, source, of.judged[source], target, generator, code)
            for seed, judges in panel.items():
                right = judges[target].predict(images) == labels[source]
                by_code = found[str(seed)].setdefault(direction, {})
                by_code[code] = {"images": share(right), "pairs": share(right[paired])}
    return found


@torch.no_grad()
def probe(of: Context, passes: int) -> dict[str, dict]:
    """Table 2 by one linear layer that Adam trains on codes drawn from the posteriors: a `share` of each kind of code.

    It is trained on joint codes, as the paper says, and applied to one draw of each judged image's code and of each
    pair's, of one round. A model without joint codes has one layer for each modality, as in that code, and no "joint".
    """
    pairs = tuple_indices({name: digits.labels for name, digits in of.train.items()}, ROUNDS, of.seed)
    first = next(iter(pairs))
    truth = of.train[first].labels[pairs[first].long()]
    alone = {name: {name: all_rows(digits)} for name, digits in of.judged.items()}
    labels = {name: digits.labels for name, digits in of.judged.items()}
    if of.model.has_joint_code:
        layer = _trained(of, "joint", pairs, truth, passes)
        alone["joint"], joint_truth = one_round(of.judged, of.seed)
        labels["joint"] = torch.from_numpy(joint_truth)
        layers = dict.fromkeys(alone, layer)
    else:
        layers = {name: _trained(of, name, {name: index}, truth, passes) for name, index in pairs.items()}
    found = {}
    for name, index in alone.items():
        generator = of.generator("published probe", name, "judged")
        codes = of.model.sample_posterior(_posteriors(of, of.judged, index), generator)
        found[name] = share(layers[name](codes).argmax(dim=-1).cpu() == labels[name].cpu())
    return found


def _posteriors(of: Context, digits: Mapping, index: Mapping[str, Tensor]):
    """q(z | the given modalities) of all rows of an index as one posterior."""
    parts = list(shared_posteriors(of.model, digits, index))
    return type(parts[0])(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _trained(of: Context, name: str, index: Mapping[str, Tensor], truth: Tensor, passes: int) -> nn.Linear:
    """The layer after so many passes over the codes of an index, drawn anew in each; truth: (n,) their digits."""
    posterior, generator = _posteriors(of, of.train, index), of.generator("published probe", name)
    width = posterior.mean.shape[-1]
    layer = nn.utils.skip_init(nn.Linear, width, 10, device=truth.device)
    for parameter in layer.parameters():  # as torch begins a linear layer, from a generator of our own
        parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) / width**0.5)
    optimiser = torch.optim.Adam(layer.parameters(), lr=RATE, fused=True)
    for _ in range(passes):
        codes = of.model.sample_posterior(posterior, generator)
        order = torch.randperm(len(truth), generator=generator).to(truth.device)
        for rows in order.split(BATCH):
            _step(layer, optimiser, codes[rows], truth[rows])
    return layer


@torch.enable_grad()
def _step(layer: nn.Linear, optimiser: torch.optim.Optimizer, codes: Tensor, truth: Tensor) -> None:
    loss = F.cross_entropy(layer(codes), truth)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def metrics(panel: Mapping[int, Mapping[str, Judge]], passes: int) -> dict[str, Callable[[Context], dict]]:
    """The metrics of the harness by name; those that need judges only where there are some."""
    judged = {JUDGES: lambda of: cross_generation(of, panel)} if panel else {}
    return judged | {PROBE: lambda of: probe(of, passes)}
