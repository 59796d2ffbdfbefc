"""A dataset of a lab's own, whose reader gets better: Penn Action's layout under another name.
[raw -> tracks]
"""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.datasets.penn_action import PennAction


@dataclass(frozen=True)
class Lab(PennAction):
    """Pictures and hand-made joints."""

    name: ClassVar[str] = "lab"
    version: ClassVar[int] = 1
