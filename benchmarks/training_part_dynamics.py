"""How fast is a step of part dynamics' training?

    .venv/bin/python benchmarks/training_part_dynamics.py --out benchmarks/training_part_dynamics.md

The published sizes: 32 windows of 16 frames with all labels, random numbers in memory, so that the ratio is of
computing alone. First all ways take the same steps from equal parameters, without dropout: losses must agree to 1e-4,
or the benchmark ends. Then they train in turns.

Usual: the gated convolutions by loops over regions and taps (nn.functional.conv1d for what a region is given of the
others); every vertex of every body; Adam, one parameter after the other. "Loops" has the loops alone.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.body import Body
from pipeline.features.networks.pr_vipe import PrVIPE
from vibe_model.losses import generator_losses
from vibe_model.part_dynamics import losses
from vibe_model.part_dynamics.config import HISTORY, PartDynamicsConfig
from vibe_model.part_dynamics.decoder import RegionConvolution
from vibe_model.part_dynamics.generator import pose_neighbours
from vibe_model.part_dynamics.training import SUPERVISED, PartDynamicsTrainer
from vibe_model.pr_vipe.training import STATE
from vibe_model.training.data import Batch

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.training import AGREEMENT, FP32, USUAL, in_turns, report, timed

LOOPS: Final = "loops over regions"
STEPS_COMPARED: Final = 2


class Loops(PartDynamicsTrainer):
    """Ours, with the convolutions written out."""

    def __init__(self, config: PartDynamicsConfig, body: Body) -> None:
        super().__init__(config, body)
        for module in self.generator.modules():
            if isinstance(module, RegionConvolution):
                module.forward = MethodType(by_loops, module)  # type: ignore[method-assign]


class Usual(Loops):
    """And with every vertex, and with an optimiser that takes one parameter after the other."""

    def __init__(self, config: PartDynamicsConfig, body: Body) -> None:
        super().__init__(config, body)
        plain: Any = {"lr": config.lr_generator, "foreach": False, "fused": False}
        self.learners["generator"].optimiser = torch.optim.Adam(self.generator.parameters(), **plain)

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        weights, labels, embedding = self.config.weights, batch.labels, self.embedding
        assert embedding is not None
        every = self.generator.regress_around(**{name: labels[name] for name in ("features", *self.config.beside)})
        current = self.generator.pose(every.pop(0))
        supervised = {name: weights[name] for name in SUPERVISED}
        terms = generator_losses(current, labels, supervised)
        neighbours = pose_neighbours(self.generator.body, every)
        terms["neighbours"] = weights["neighbours"] * losses.neighbours(neighbours, labels, supervised)
        kp_2d = labels["kp_2d"]
        with torch.no_grad():
            normalised, known = PrVIPE.normalise(losses.keypoints_13(kp_2d[..., :2], kp_2d))
            labelled = torch.cat(embedding(normalised.flatten(0, 1)), dim=-1).view(*known.shape, -1)
        unsure = losses.uncertainty(embedding, losses.keypoints_13(current["kp_2d"], kp_2d), labelled, known)
        terms["uncertainty"] = weights["uncertainty"] * unsure
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}


def by_loops(convolution: RegionConvolution, states: Tensor) -> Tensor:
    """`RegionConvolution.forward`, recombination "multiply": (B, T, R, W) -> (B, T, R, W)."""
    n_frames, n_regions, width = states.shape[1:]
    kernel, dilation = convolution.kernel, convolution.dilation
    margin = (kernel - 1) // 2 * dilation
    padded = states[:, torch.arange(-margin, n_frames + margin, device=states.device).clamp(0, n_frames - 1)]
    context = []
    for region in range(n_regions):
        others = torch.cat([padded[:, :, other] for other in range(n_regions) if other != region], dim=-1).mT
        weight = convolution.context[region].transpose(2, 3).reshape(kernel, (n_regions - 1) * width, kernel)
        context.append(functional.conv1d(others, weight, convolution.context_bias[region], dilation=dilation))
    gates = convolution.context_norm(torch.cat(context, dim=1)).sigmoid()  # (B, R K, T)
    found = []
    for region, weights in enumerate(convolution.weight):
        out = torch.zeros_like(states[:, :, region])
        for tap, weight in enumerate(weights):
            at = padded[:, tap * dilation : tap * dilation + n_frames, region]
            out = out + (at * gates[:, region * kernel + tap, :, None]) @ weight
        found.append(out)
    return torch.stack(found, dim=2)


def random_batch(config: PartDynamicsConfig) -> Batch:
    """Windows of random numbers of a sensible size: what is measured does not depend on them."""
    size, random = (config.batch_size, config.seqlen), torch.randn
    ones = torch.ones(size)
    embedded = torch.cat([random(*size, 32), torch.rand(*size, 32) + 0.1], dim=-1)
    labels = {
        "features": random(*size, config.feature_size).abs() / 2,
        "pr_vipe": embedded,
        "homography": random(*size, 9 * (HISTORY + 1)) / 100,
        "kp_2d": torch.cat([random(*size, 49, 2) * 0.3, torch.ones(*size, 49, 1)], dim=-1),
        "kp_3d": random(*size, 49, 3) * 0.3,
        "theta": random(*size, 85) * 0.2,
        **dict.fromkeys(("pr_vipe_ok", "homography_ok", "w_3d", "w_smpl", "valid"), ones),
    }
    return Batch({name: value.to(config.device) for name, value in labels.items()}, None)


def main() -> None:
    """Compare, measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="of each way in each round")
    parser.add_argument("--small", action="store_true", help="short windows, 2 rounds of 1 step: to see that it works")
    parser.add_argument("--out", type=Path, help="write the report here: benchmarks/training_part_dynamics.md")
    args = parser.parse_args()
    sizes: Any = {"batch_size": 2, "seqlen": 8, "width": 16} if args.small else {}
    if args.small:
        args.rounds = 2
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        embedding = Path(folder, "embedding.pt")
        torch.save({STATE: PrVIPE().state_dict(), "stand_in": True}, embedding)
        config = PartDynamicsConfig(embedding=embedding, runs=Path(folder), device=args.device, **sizes)
        body = Body.stand_in()
        ways = {USUAL: Usual(config, body), LOOPS: Loops(config, body), FP32: PartDynamicsTrainer(config, body)}
        batch = random_batch(config)
        agreement = compared(ways, batch)
        turns = {way: partial(timed, itertools.repeat(batch), trainer.train_step) for way, trainer in ways.items()}
        lines = [*in_turns(turns, args), "", agreement]
    about = "DEMO DATA: random labels and features, the procedural body; no result about the model."
    report(about, "How fast is a step of part dynamics' training?", lines, args)


def compared(ways: dict[str, PartDynamicsTrainer], batch: Batch) -> str:
    """Take steps without dropout, from equal parameters; a line on how their losses differ. Ends if they do."""
    start = ways[USUAL].generator.state_dict()
    dropouts = [m for trainer in ways.values() for m in trainer.generator.modules() if isinstance(m, nn.Dropout)]
    for trainer in ways.values():
        trainer.generator.load_state_dict(start)
    usual_p = [module.p for module in dropouts]
    for module in dropouts:
        module.p = 0.0
    worst: dict[str, float] = {}
    for _ in range(STEPS_COMPARED):
        expected = ways[USUAL].train_step(batch).terms
        for way in (LOOPS, FP32):
            found = ways[way].train_step(batch).terms
            worst = {k: max(worst.get(k, 0.0), abs(float(found[k]) / float(expected[k]) - 1)) for k in expected}
    for module, p in zip(dropouts, usual_p, strict=True):
        module.p = p
    text = f"Relative difference of losses from the usual way, {STEPS_COMPARED} steps, fp32: at most "
    text += ", ".join(f"{name} {value:.1e}" for name, value in worst.items()) + "."
    if not max(worst.values()) <= AGREEMENT:
        raise SystemExit(f"{text} Expected at most {AGREEMENT:g}.")
    return text


if __name__ == "__main__":
    main()
