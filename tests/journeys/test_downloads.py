"""Datasets as people get them today, and the official files that arrive later in the same
folder.
"""

import re
import shutil

import pytest

import cache
from tests.journeys.conftest import KIT
from tests.journeys.made_inputs import CHANGES
from tests.pipeline.datasets.made_h36m_json import write_scene
from tests.pipeline.datasets.made_posetrack import add_21

SPLITS = ("h36m/train", "h36m/val", "posetrack/train", "posetrack/val")


def write_downloads(embedded, folder):
    """PoseTrack21 and 3DMPPE's Human3.6M in `raw`; the official labels and videos of the same
    scenes are returned.
    """
    raw, later = folder / "raw", folder / "later"
    add_21(embedded.copy("posetrack", raw / "posetrack"), later / "posetrack_data")
    for take in embedded.takes("h36m"):
        write_scene(take, raw / "h36m", is_place=take.shot.split == "val", fits="smpl_param")
    for images in (raw / "h36m/images").iterdir():
        first, *others = sorted(images.iterdir())
        for image in others:
            shutil.copy(first, image)
    embedded.copy("h36m", later / "h36m")
    # the videos are smaller than the release's, as only demo data may be
    shutil.copy(later / "h36m/STAND_IN.json", raw / "h36m")
    return later


def tracks_of(terminal):
    """Track's name -> frames."""
    found = {}
    for name in SPLITS:
        split = cache.open(terminal.folder / "cache")[name]
        frames = split.column("frame_index")[:]
        found |= {
            f"{name}/{track.name}": frames[track.start : track.stop].tolist()
            for track in split.tracks
        }
    return found


# what doctor says about the first downloads, and about labels that are there twice
THERE = (
    r"posetrack_data/train/<sequence>\.json, \.\.\. +2 +not known",
    r"images/train/<sequence>/ +2 +not known",
    r"h36m \(demo data\) +train joints .* 1 +not known",
)
OF_2018 = (
    r"2 sequences with labels of PoseTrack 2018 and of PoseTrack21: those of 2018 count, "
    r"those in \S+/train do not"
)
OF_SUBJECTS = r"S<k>/ counts for sequences that are complete in it, not images/"


def write_settings(config):
    """Restrict a new luigi.cfg to the two datasets, with the values of CHANGES."""
    settings = re.sub(r"datasets = .*", "datasets = posetrack h36m", config.read_text())
    for old, new in CHANGES.items():
        settings = settings.replace(old, new)
    config.write_text(settings)


@pytest.mark.promise("problems of PoseTrack")
def test_what_people_get_today_is_prepared_and_official_files_that_arrive_cost_themselves(
    terminal, embedded
):
    types, raw = terminal.types, terminal.folder / "raw"
    prepare = {
        name: f"pipeline prepare {name} --raw raw/{name} --cache cache"
        for name in ("posetrack", "h36m")
    }
    terminal.install(KIT)
    later = write_downloads(embedded, terminal.folder)
    types("pipeline init")
    write_settings(terminal.folder / "luigi.cfg")

    assert "missing" not in types("pipeline doctor", *THERE)
    types(
        prepare["posetrack"],
        r"frames 27 kept of 63, 36 no_keypoints",
        r"extract +posetrack/train .*27 rows computed",
    )
    types(
        prepare["h36m"],
        r"frames 16 kept of 32, 16 not_sampled",
        r"extract +h36m/val .*16 rows computed",
    )
    types("pipeline plan", r"up to date: 4 splits")
    terminal.is_intact("cache")
    before = tracks_of(terminal)
    assert len(before) == 8

    shutil.move(later / "posetrack_data", raw / "posetrack/posetrack_data/annotations")
    for name in ("S1", "metadata.xml"):  # one subject of two splits
        shutil.move(later / "h36m" / name, raw / "h36m")
    types("pipeline doctor", OF_2018, OF_SUBJECTS)
    types(
        "pipeline plan",
        r"posetrack/train\n +convert +2 videos to read",
        r"h36m/train\n +convert +2 videos to read",
    )
    shown = types(prepare["posetrack"], OF_2018, r"extract +posetrack/train .* 27 carried over")
    assert shown.count("rows computed") == shown.count(" 0 rows computed"), (
        "no feature is computed again"
    )
    types(
        prepare["h36m"],
        OF_SUBJECTS,
        r"✓ h36m/val: up to date",
        r"extract +h36m/train .*16 rows computed",
    )
    assert tracks_of(terminal) == before
    types("pipeline plan", r"up to date: 4 splits")
    for again in prepare.values():
        assert "convert" not in types(
            again, r"train: up to date \(2 videos, means\)", r"val: up to date"
        )
    terminal.is_intact("cache")
