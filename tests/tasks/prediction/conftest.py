"""A small world to predict in: an embedded video with OpenPose's keypoints, and an untrained checkpoint of ours."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.body import Body
from pipeline.cli.progress import silent
from pipeline.conversion.convert import Conversion
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from tests.tasks.conftest import FakeNetwork
from vibe_extensions.clips.prediction import job as jobs
from vibe_extensions.clips.prediction import predict, sources
from vibe_extensions.clips.prediction.job import PredictionJob
from vibe_extensions.clips.prediction.sources import ClipsToPredict
from vibe_extensions.demo import writing as synthetic
from vibe_model import models
from vibe_model.networks.video_model import VideoModel
from vibe_model.prediction.trained import Trained, load_trained
from vibe_model.settings.video_config import VideoConfig
from vibe_model.vibe.config import TrainConfig

SEQLEN = 40  # longer than the video: all of a track is one window
SPLIT = "videos/train"


@dataclass
class World:
    raw: Path  # of Kinetics' demo data
    video: Path
    keypoints: Path
    checkpoint: Path

    @functools.cached_property
    def trained(self) -> Trained:
        return load_trained(self.checkpoint, None, "cpu")

    def prepare(
        self, out: Path, trained: Trained | None = None, video: Path | None = None, **labels: Any
    ) -> tuple[ClipsToPredict, PredictionJob]:
        """What is checked before any work. The video has its keypoints, unless `labels` are others."""
        out.mkdir(exist_ok=True)
        source = sources.of_clips([video or self.video], out, **({"keypoints": self.keypoints} | labels))
        return source, jobs.of_source(source, trained or self.trained, streams(), out)

    def tracks(self, out: Path, **labels: Any) -> tuple[Conversion | None, PredictionJob]:
        source, job = self.prepare(out, **labels)
        return jobs.make_tracks(source, Path(job.root), silent), job

    def predicted(self, out: Path, *, overlay: bool = False, **labels: Any) -> PredictionJob:
        """All steps."""
        _, job = self.tracks(out, **labels)
        jobs.make_features(job, streams(), CPU, silent)
        predict.predict_videos(job, predict.PredictionOptions(overlay=overlay), silent)
        return job

    def found(self) -> dict[int, int]:
        """Frame -> how many persons OpenPose found in it."""
        files = sorted(self.keypoints.glob("*_keypoints.json"))
        return {i: len(json.loads(file.read_text())["people"]) for i, file in enumerate(files)}


CPU = Resources(device="cpu", workers=1)


def streams() -> tuple[StreamSpec, ...]:
    return (StreamSpec(stream=ResNet50()),)


def small_config(**changes: Any) -> TrainConfig:
    return TrainConfig.embedded(**{"seqlen": SEQLEN, "hidden_size": 8, "regressor_size": 8, **changes})


def save_checkpoint(file: Path, built: VideoConfig | None = None, **facts: Any) -> VideoModel:
    """As training writes its best one. `facts` are in it beside or instead of the usual ones; ...: left out."""
    built = built or small_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        generator = models.of(built).build(built, the_body())
    content = {"gen_state_dict": dict(generator.state_dict()), "config": built.as_dict(), "stand_in": True}
    content |= {"of_model": built.MODEL, **facts}
    torch.save({key: value for key, value in content.items() if value is not ...}, file)
    return generator


the_body = functools.cache(Body.stand_in)


@pytest.fixture(scope="module", autouse=True)
def one_body() -> Iterator[None]:
    """The procedural body is read once, in place of SMPL's too: that takes a third of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vibe_model.prediction.trained.load_body", lambda folder: the_body())
        patch.setattr(Body, "stand_in", the_body)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    raw = folder / "kinetics"
    synthetic.write_dataset("kinetics", raw, n_videos=1, n_frames=28)
    (video,) = raw.glob("val/*/*.mp4")
    save_checkpoint(folder / "best.pt")
    return World(raw, video, raw / "keypoints/val" / video.stem, folder / "best.pt")


@pytest.fixture(scope="session")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> PredictionJob:
    """The whole of it, once: two tracks with 2D labels, an untrained model, bodies, an overlay. Read-only."""
    with pytest.MonkeyPatch.context() as patch:
        FakeNetwork.install(patch)
        return world.predicted(tmp_path_factory.mktemp("made"), overlay=True)


@pytest.fixture
def job(made: PredictionJob) -> PredictionJob:
    return made
