"""Demo data: small rendered datasets in the official layouts, and a procedural body. See README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.plug_ins import DemoData

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.cli.progress import Progress
    from pipeline.files.formats.smpl_files import SmplArrays

RELEASES: Final = (  # official releases that demo data imitates
    *("penn_action", "posetrack", "insta_variety", "kinetics", "mpi_inf_3dhp"),
    *("h36m", "3dpw", "emdb", "bedlam", "amass"),
)


def _is_current(raw: Path, body: Path, datasets: Sequence[str], *, seed: int, size: str) -> bool:
    from vibe_extensions.demo import writing

    return writing.is_current(raw, body, datasets, seed=seed, size=size)


def _synthesize(
    raw: Path, body: Path, datasets: Sequence[str], *, seed: int, size: str, workers: int, progress: Progress
) -> None:
    from vibe_extensions.demo import writing

    writing.synthesize(raw, body, datasets, seed=seed, size=size, workers=workers, progress=progress)


def _procedural_body(gender: str) -> SmplArrays:
    from vibe_extensions.demo import body

    return body.procedural(gender)


def _calibration_crops(n: int) -> NDArray[np.uint8]:
    from vibe_extensions.demo import scene

    return scene.calibration_crops(n)


DEMO: Final = DemoData(
    datasets=(*RELEASES, "videos"),
    is_current=_is_current,
    synthesize=_synthesize,
    procedural_body=_procedural_body,
    calibration_crops=_calibration_crops,
)
