"""Embeddings of 2D poses by Pr-VIPE.  labels -> [pr_vipe] -> features

The static feature of "Uncertainty-Aware Human Mesh Recovery from Video by Learning Part-Based 3D
Dynamics" (Lee and Lee, ICCV 2021). `luigi --module tasks TrainPrVIPE` trains the embedding
(docs/part-dynamics.md).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from pipeline.errors import ConfigError
from pipeline.features.streams.base import LabelStream, Machine, Provenance
from pipeline.features.streams.network import NETWORKS
from pipeline.features.weights import KINDS, WeightsSpec
from pipeline.people import skeletons
from pipeline.people.skeletons import Array
from vibe_model.part_dynamics.pr_vipe.config import SIZE, STATE

if TYPE_CHECKING:
    import torch

    from vibe_model.part_dynamics.pr_vipe.network import PrVIPE


# rows per batch; constant, so that a row's result does not depend on how many other rows there are
AT_ONCE: Final = 256


class _EmbeddingWeights(WeightsSpec):
    """Source of an embedding's weights; see `kinds`."""

    __slots__ = ()
    kinds: ClassVar[Mapping[str, Any]] = {
        "file": replace(
            KINDS["file"],
            form="best.pt of TrainPrVIPE, for example file:runs/pr-vipe-1f2e3d4c5b6a7988/best.pt",
        ),
        "untrained": KINDS["untrained"],
    }
    forms: ClassVar[str] = "file:FILE, the best.pt of TrainPrVIPE"


@dataclass(frozen=True, kw_only=True)
class PrVipe(LabelStream):
    """Mean (32) and standard deviation (32) of the embedding of a row's 2D keypoints.

    If a hip or shoulder is missing, the row has flag 0 and the prior: means 0, standard deviations
    1.
    """

    # of the embedding
    weights: _EmbeddingWeights = _EmbeddingWeights("untrained", "0")  # noqa: RUF009 - it is frozen

    kind: ClassVar[str] = "pr_vipe"
    version: ClassVar[int] = 1
    uses: ClassVar[dict[str, int]] = LabelStream.uses | NETWORKS
    dim: ClassVar[int] = 2 * SIZE
    columns: ClassVar[tuple[str, ...]] = ("kp_2d",)
    is_trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.weights, _EmbeddingWeights):
            raise ConfigError(
                f"weights {self.weights}: expected {_EmbeddingWeights.forms}", "weights"
            )

    @property
    def trained_by(self) -> str:
        if self.weights.stand_in:
            return "TrainPrVIPE"
        return ""

    def with_weights(self, checkpoint: Path) -> PrVipe:
        return replace(self, weights=_EmbeddingWeights("file", str(checkpoint)))

    @property
    def stand_in(self) -> bool:
        """Whether the weights are random, or the embedding was trained on demo data."""
        return self.weights.stand_in or bool(self._checkpoint().get("stand_in"))

    def _checkpoint(self) -> dict[str, Any]:
        return _read_checkpoint(self.weights, str(self.weights.identity()))

    def load(self, machine: Machine, recorded: Provenance | None) -> _Embedding:  # noqa: ARG002
        """Load the embedding on its device. Raises as `load_network`, and ConfigError for an
        unavailable device.
        """
        from pipeline.features.networks import chosen_device
        from pipeline.features.networks.backbones import tensor_digest

        network = self.load_network()
        about = {
            "weights": self.weights.identity(),
            "sha256": tensor_digest(network),
            "stand_in": self.stand_in,
            **self.weights.terms(),
        }
        return _Embedding(network, chosen_device(machine.device), about)

    def load_network(self) -> PrVIPE:
        """Load the frozen embedding. Raises MissingAssets for a missing checkpoint, RawDataError
        for an invalid one.
        """
        import torch

        from pipeline.features.networks.backbones import fill
        from pipeline.files.formats.checkpoints import not_a_checkpoint
        from vibe_model.part_dynamics.pr_vipe.network import PrVIPE

        if self.weights.stand_in:
            with torch.random.fork_rng(devices=[]):  # keep the caller's random state
                torch.manual_seed(int(self.weights.argument))
                network = PrVIPE(SIZE)
        else:
            file = self.weights.file()
            state = self._checkpoint().get(STATE, {})
            hidden: tuple[int, ...] = getattr(state.get("stem.linear.bias"), "shape", ())
            if len(hidden) != 1:
                names = ", ".join(sorted(state)[:3]) or "none"
                raise not_a_checkpoint(file, STATE, "the tensors of TrainPrVIPE's best.pt", names)
            network = PrVIPE(SIZE, hidden[0])
            fill(network, file, state, label="Pr-VIPE")
        return network.requires_grad_(False).eval()


class _Embedding:
    """The computer of `PrVipe`, with its network on a device."""

    def __init__(self, network: PrVIPE, device: torch.device, provenance: Provenance) -> None:
        self.provenance = provenance
        self._network = network.to(device)
        self._device = next(network.parameters()).device

    def __call__(self, labels: Mapping[str, Array]) -> tuple[skeletons.Floats, skeletons.Bools]:
        """kp_2d (n, 49, 3) in any unit, with confidence -> (n, 64), and (n,) whether the torso is
        visible.
        """
        import torch

        kp_2d = np.asarray(labels["kp_2d"], np.float64)
        kp = torch.from_numpy(skeletons.keypoints_13(kp_2d))
        normalised, has_torso = self._network.normalise(kp)
        prior = torch.tensor([0.0] * SIZE + [1.0] * SIZE)  # means, standard deviations
        with torch.inference_mode():
            computed = [self._embed(part) for part in torch.split(normalised.float(), AT_ONCE)]
        values = torch.where(has_torso[:, None], torch.cat(computed), prior)
        return values.numpy(), has_torso.numpy()

    def _embed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Means and standard deviations (n, 64) of n normalised poses (n, 39), at most AT_ONCE."""
        import torch

        n_missing = AT_ONCE - len(inputs)
        batch = torch.nn.functional.pad(inputs, (0, 0, 0, n_missing))
        mean, std = self._network(batch.to(self._device))
        return torch.cat((mean, std), dim=1)[: len(inputs)].cpu()


@functools.lru_cache(maxsize=1)
def _read_checkpoint(weights: _EmbeddingWeights, identity: str) -> dict[str, Any]:  # noqa: ARG001 - of the file's content: a changed file is read again
    from pipeline.files.formats.checkpoints import load_checkpoint

    return load_checkpoint(weights.file())
