"""Contracts as pytest classes. Subclass one in a test file and override its fixtures:

    class TestMine(StreamContract):
        @pytest.fixture
        def stream(self) -> Stream:
            return MyStream()

A test fails with the list of broken promises. The functions behind them return this list: `reader_problems`, ...
Fixtures that a docstring names must be defined; others have a default.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pipeline.body import Body
    from pipeline.datasets.base import Dataset
    from pipeline.detect import Detector
    from pipeline.features.streams.base import Labels, Stream
    from pipeline.files.pixels.frames import Image
    from vibe_model.evaluation.protocols import Protocol
    from vibe_model.settings import VideoConfig


def _fail_on(problems: list[str]) -> None:
    """Fail the test with one line for each broken promise."""
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


class DatasetContract:
    """Tests of a dataset's reader (`datasets.reader_problems`): fixtures `dataset` and `raw`, its raw folder."""

    @pytest.fixture
    def split(self, dataset: Dataset) -> str:
        """Name of the split to read; parametrize the class by `split` to read several (default: the first)."""
        return dataset.splits[0]

    @pytest.fixture
    def body(self) -> Body | None:
        """Body model to check `pose`; required for datasets with `uses_body` (default: none)."""
        return None

    def test_reader_keeps_its_promises(self, dataset: Dataset, raw: Path, split: str, body: Body | None) -> None:
        from vibe_extensions.contracts.datasets import reader_problems

        _fail_on(reader_problems(dataset, raw, split, body))


class StreamContract:
    """Tests of a stream (`streams.stream_problems`): fixture `stream`, with the options to test."""

    @pytest.fixture
    def labels(self) -> Labels | None:
        """Nine rows of the columns that the stream reads (default: random rows)."""
        return None

    @pytest.fixture
    def another_process(self) -> bool:
        """Whether to repeat the test in a second process, which must be able to import the module (default: yes)."""
        return True

    def test_stream_keeps_its_promises(self, stream: Stream, labels: Labels | None, another_process: bool) -> None:
        from vibe_extensions.contracts.streams import stream_problems

        _fail_on(stream_problems(stream, labels, another_process=another_process))


class DetectorContract:
    """Tests of a detector (`detectors.detector_problems`): fixture `detector`, with the options to test."""

    @pytest.fixture
    def images(self) -> Sequence[Image] | None:
        """Images with people to detect, (H, W, 3) uint8 RGB (default: demo images, with no detection required)."""
        return None

    @pytest.fixture
    def another_process(self) -> bool:
        """Whether to repeat the test in a second process, which must be able to import the module (default: yes)."""
        return True

    def test_detector_keeps_its_promises(
        self, detector: Detector, images: Sequence[Image] | None, another_process: bool
    ) -> None:
        from vibe_extensions.contracts.detectors import detector_problems

        _fail_on(detector_problems(detector, images, another_process=another_process))


class ProtocolContract:
    """Tests of an evaluation protocol (`protocols.protocol_problems`): fixture `protocol`."""

    def test_protocol_keeps_its_promises(self, protocol: Protocol) -> None:
        from vibe_extensions.contracts.protocols import protocol_problems

        _fail_on(protocol_problems(protocol))


class ModelContract:
    """Tests of a model (`models.model_problems`): fixture `config`.

    Its value is a small configuration whose `cache` holds its training splits, for example of demo data.
    """

    def test_model_keeps_its_promises(self, config: VideoConfig) -> None:
        from vibe_extensions.contracts.models import model_problems

        _fail_on(model_problems(config))
