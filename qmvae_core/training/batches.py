"""The data's side of a step: which pairs and which draws, each a pure function of seed, epoch and chunk."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from qmvae_core.data import Digits, missing_at_random, most_classes, tuple_indices
from qmvae_core.draws import draw_noise, seed_for
from qmvae_core.training.config import TrainingConfig
from qmvae_core.training.learners import put_back, stored


class Steps:
    """The data's side of a step: which pairs, which draws. All tensors keep their places, so a step can be captured."""

    def __init__(self, learner, training: TrainingConfig, train: Mapping[str, Digits], seeds, device: torch.device):
        self.learner, self.training, self.seeds, self.device = learner, training, seeds, device
        self.digits = {name: digits.to(device) for name, digits in train.items()}
        labels = {name: digits.labels.cpu() for name, digits in train.items()}
        self.pairs = {
            name: index.to(device)
            for name, index in tuple_indices(labels, training.rounds, training.pair_seed, most_classes(train)).items()
        }
        first = next(iter(self.pairs))
        self.labels = self.digits[first].labels[self.pairs[first].long()]
        learner.model.check_labels(self.labels, training.batch_size)
        self.there = {}
        if training.missing:
            if not learner.model.takes_missing:
                raise ValueError(f"{learner.config.model} cannot train with missing modalities; leave missing at 0")
            there = missing_at_random(list(self.pairs), len(self.labels), training.missing, training.pair_seed)
            self.there = {name: mask.to(device) for name, mask in there.items()}
        both = [(self.there[x] & self.there[y]).double().mean().item() for x, y in combinations(self.there, 2)]
        self.paired = sum(both) / len(both) if both else 1.0  # the share of modalities' pairs that are there together
        self.steps = training.steps_per_epoch or -(-len(self.labels) // training.batch_size)
        self.order = torch.zeros((len(seeds), self.steps, training.batch_size), dtype=torch.int32, device=device)
        self.step_in_epoch = torch.zeros(1, dtype=torch.int64, device=device)
        self.step_in_chunk = torch.zeros(1, dtype=torch.int64, device=device)
        self.noise_spec = learner.model.noise_spec(training.batch_size)
        self.noise = self._draws(0, 0)
        self.names: list[str] = []
        self.means = torch.zeros(0, device=device)  # of the terms in each step of this epoch: (steps, terms, seeds)
        self.graph: torch.cuda.CUDAGraph | None = None

    def start_epoch(self, epoch: int) -> None:
        """Shuffle the pairs of each seed; a last short batch is filled up from the start of the same shuffle."""
        rows = self.steps * self.training.batch_size
        for i, seed in enumerate(self.seeds):
            generator = torch.Generator().manual_seed(seed_for(seed, "order", epoch))
            order = torch.randperm(len(self.labels), generator=generator, dtype=torch.int32)
            repeated = order.repeat(-(-rows // len(order)))[:rows]
            self.order[i].copy_(repeated.view(self.steps, -1))

    def run_chunk(self, epoch: int, chunk: int) -> int:
        """Queue the steps of one chunk, without waiting for the device; returns how many."""
        start = chunk * self.training.chunk
        count = min(self.training.chunk, self.steps - start)
        for name, value in self._draws(epoch, chunk).items():
            self.noise[name].copy_(value)
        if self.device.type == "cuda" and self.graph is None:
            kept = self.means.clone()
            self._capture()
            self.means[: len(kept)] = kept
        self._at(start)
        for _ in range(count):
            if self.graph is None:
                self._step()
            else:
                self.graph.replay()
        return count

    def _at(self, step: int) -> None:
        self.step_in_epoch.fill_(step)
        self.step_in_chunk.fill_(step % self.training.chunk)

    @property
    def chunks(self) -> int:
        return -(-self.steps // self.training.chunk)

    def report_before(self, chunk: int) -> int | None:
        """The chunk after which the report before the one that is due after `chunk` chunks was; None: none is due."""
        ends = [-(-self.chunks * number // self.training.reports) for number in range(self.training.reports + 1)]
        return max(end for end in ends if end < chunk) if chunk in ends[1:] else None

    def _draws(self, epoch: int, chunk: int) -> dict[str, Tensor]:
        lead = (self.training.chunk,)
        before = epoch * self.steps + chunk * self.training.chunk
        done = torch.arange(before, before + self.training.chunk, device=self.device)
        progress = {
            name: done / (self.training.epochs * self.steps)
            for name, item in self.noise_spec.items()
            if item.kind == "progress"
        }
        drawn = []
        for seed in self.seeds:
            generator = torch.Generator(self.device).manual_seed(seed_for(seed, "noise", epoch, chunk))
            drawn.append(draw_noise(self.noise_spec, generator, self.device, lead) | progress)
        return {name: torch.stack([draws[name] for draws in drawn], dim=1) for name in drawn[0]}

    def _step(self) -> None:
        rows = self.order.index_select(1, self.step_in_epoch).squeeze(1).long()
        images = {name: digits.batch(self.pairs[name][rows].long()) for name, digits in self.digits.items()}
        noise = {name: value.index_select(0, self.step_in_chunk).squeeze(0) for name, value in self.noise.items()}
        there = [{name: mask[rows] for name, mask in self.there.items()}] if self.there else []
        means = self.learner.update(images, self.labels[rows], noise, *there)
        if not self.names:
            self.names = list(means)
        if not len(self.means):
            self.means = torch.zeros((self.steps, len(means), len(self.seeds)), device=self.device)
        self.means.index_copy_(0, self.step_in_epoch, torch.stack(list(means.values())).unsqueeze(0))
        self.step_in_epoch += 1
        self.step_in_chunk += 1

    def _capture(self) -> None:
        """Record one step as a CUDA graph; the warm-up that this needs is undone, so no step is taken."""
        before = stored(self.learner)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._at(0)
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self._at(0)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        put_back(self.learner, before)
        self.graph = graph
