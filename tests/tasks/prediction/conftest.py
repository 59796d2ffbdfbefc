"""A small world to predict in: an embedded video with OpenPose's keypoints, and an untrained
checkpoint of ours.
"""

import base64
import functools
import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pipeline.files.raw import MARKER
from pipeline.people.body import Body
from tasks.__main__ import main
from tests.bodies import the_body
from tests.fake_network import replace_network
from tests.fixtures import embedded  # noqa: F401
from tests.results import read_file
from vibe_model import models
from vibe_model.prediction import job as jobs
from vibe_model.trained import Trained
from vibe_model.vibe.config import TrainConfig

SEQLEN = 40  # longer than the video: all of a track is one window
SPLIT = "videos/train"
SHORT = ("--set", "videos.min_frames=5")


def of_model(checkpoint, body):
    """The options of a checkpoint and its body."""
    return ("--checkpoint", checkpoint, "--body", body, "--device", "cpu")


def without_settings(patch, folder):
    """Commands run in a folder without luigi.cfg, by a network that costs nothing."""
    replace_network(patch)
    patch.delenv("LUIGI_CONFIG_PATH", raising=False)
    patch.chdir(folder)


def summary(out):
    return read_file(out / "predictions.json")


def bodies_of(out):
    """Track's name -> the arrays of its file."""
    tracks = [track for video in summary(out)["videos"] for track in video["tracks"]]
    return {track["name"]: dict(np.load(out / track["file"])) for track in tracks}


def halves_of(page):
    """The images of a player, each as its upper half and its lower one, with the bodies."""
    (encoded,) = re.findall(r"data:video/mp4;base64,([^<]+)", page.read_text())
    with av.open(io.BytesIO(base64.b64decode(encoded))) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [(image[: len(image) // 2], image[len(image) // 2 :]) for image in images]


@dataclass
class World:
    raw: Path  # of Kinetics' demo data
    video: Path
    keypoints: Path
    checkpoint: Path

    @functools.cached_property
    def trained(self):
        return Trained.load(self.checkpoint, None, "cpu")

    def clips(self, folder, labels=None):
        """A folder with a link to the video and to its keypoints, or to other labels."""
        of_clip = labels or self.keypoints
        (folder / "keypoints").mkdir(parents=True, exist_ok=True)
        shutil.copy(self.raw / MARKER, folder)
        suffix = "" if of_clip.is_dir() else of_clip.suffix
        keypoints = folder / f"keypoints/{self.video.name}{suffix}"
        for place, target in ((folder / self.video.name, self.video), (keypoints, of_clip)):
            place.unlink(missing_ok=True)
            place.symlink_to(target)
        return folder

    def predict(self, out, *words, labels=None, checkpoint=None):
        """The command, for the clip with its labels."""
        model = of_model(checkpoint or self.checkpoint, out)
        places = ("--cache", out / "cache", "--out", out, "--weights", "untrained:0", *SHORT)
        return main(
            [str(w) for w in ("predict", self.clips(out / "raw", labels), *model, *places, *words)]
        )

    def predicted(self, out, *words, labels=None):
        """All steps."""
        assert self.predict(out, *words, labels=labels) == 0
        return jobs.PredictionJob.open(out / "cache", SPLIT, self.trained, "resnet50", out)


def small_config(**changes):
    return TrainConfig.embedded(
        **{"seqlen": SEQLEN, "hidden_size": 8, "regressor_size": 8, **changes}
    )


def save_checkpoint(file, built=None, **facts):
    """As training writes its best one. `facts` are in it beside or instead of the usual ones; ...:
    left out.
    """
    built = built or small_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        generator = models.build_generator(built, the_body())
    content = {
        "gen_state_dict": dict(generator.state_dict()),
        "config": built.as_dict(),
        "stand_in": True,
    }
    content |= {"of_model": built.MODEL, **facts}
    torch.save({key: value for key, value in content.items() if value is not ...}, file)
    return generator


@pytest.fixture(scope="module", autouse=True)
def one_body():
    """The procedural body is read once, in place of SMPL's too: that takes a third of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vibe_model.trained.load_body", lambda folder: the_body())
        patch.setattr(Body, "stand_in", the_body)
        yield


@pytest.fixture(scope="session")
def world(embedded, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("world")
    raw = embedded.raw("kinetics")
    (video,) = raw.glob("val/*/*.mp4")
    save_checkpoint(folder / "best.pt")
    return World(raw, video, raw / "keypoints/val" / video.stem, folder / "best.pt")


@pytest.fixture(scope="session")
def made(world, tmp_path_factory):
    """The whole of it, once: two tracks with 2D labels, an untrained model, bodies, an overlay.
    Read-only.
    """
    with pytest.MonkeyPatch.context() as patch:
        without_settings(patch, tmp_path_factory.mktemp("without_settings"))
        patch.setattr("vibe_model.trained.load_body", lambda folder: the_body())
        return world.predicted(tmp_path_factory.mktemp("made"))


@pytest.fixture
def job(made):
    return made
