"""Settings of the motion prior's training, and its presets. No torch.  [settings] -> training"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from vibe_model.errors import ConfigError
from vibe_model.models import Training
from vibe_model.settings import RunConfig


@dataclass(frozen=True, kw_only=True)
class MPoserConfig(RunConfig):
    """Settings of the motion prior's training. The defaults are ours, for AMASS; the paper gives none."""

    VERSION: ClassVar[Mapping[str, int]] = {"mposer_version": 1}
    NEUTRAL: ClassVar[frozenset[str]] = frozenset({"name", "cache", "tag", "runs", "checkpoint_every"})

    name: str = "mposer"

    # The model.
    hidden_size: PositiveInt = 512  # of the GRUs' states
    latent_size: PositiveInt = 64  # of the latent code
    n_layers: PositiveInt = 1  # of the encoder, and of the decoder

    # Training. Of the validation splits, the frames with SMPL labels count; without any, the training loss does.
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 100
    lr: PositiveFloat = 1e-4  # Adam's learning rate
    weight_decay: NonNegativeFloat = 0.0  # Adam's weight decay
    # Of the KL divergence in nats; the other term is the mean squared error of all numbers of a window's rotation
    # matrices. As a likelihood: 2 s^2 / (16 * 23 * 9) for numbers that are off by s.
    kl_weight: NonNegativeFloat = 1e-5
    plateau_patience: NonNegativeInt = 10
    checkpoint_every: PositiveInt = 500

    def check_consistency(self) -> None:
        if not self.motion:
            raise ConfigError("motion: expected splits of real motion for the motion prior to learn from, found none")

    @classmethod
    def embedded(cls, **changes: Any) -> Self:
        """A minute on two CPU cores, for the embedded demo motion."""
        small = cls(
            hidden_size=128,
            latent_size=32,
            batch_size=32,
            iterations=100,
            epochs=12,
            lr=2e-3,
            checkpoint_every=100,
            device="cpu",
        )
        return replace(small, **changes)


PRESETS: Final[Mapping[str, Callable[..., MPoserConfig]]] = {"amass": MPoserConfig, "embedded": MPoserConfig.embedded}

# A prior is for the windows that a generator is trained on: these settings of it are [vibe]'s.
OF_VIBE: Final = ("cache", "tag", "runs", "validation", "seqlen", "stride", "strides", "window_weights", "tail", "seed")
UNLESS_SET: Final = ("device",)  # this too, where [mposer] does not set it

MPOSER: Final = Training(
    title="MPoser",
    section="mposer",
    config=MPoserConfig,
    presets=PRESETS,
    preset="amass",
    elsewhere=(*OF_VIBE, "motion"),
)
