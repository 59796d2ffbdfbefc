"""Clips with keypoints, and the bodies that other people's programs found in two of them."""

import json

import numpy as np

import cache
from pipeline.people.skeletons import JOINTS
from tests.journeys.conftest import KIT
from tests.pipeline.datasets.by_hand import encode
from tests.pipeline.extras.exchange import planted_bodies as planted

CONVERT = "pipeline convert videos/train --raw clips --cache mine --set videos.min_frames=8"
FILES = "gvhmr/walk/hmr4d_results.pt wham/run/wham_output.pkl"
OPTIONS = "--format bodies --clips mine --body body --cache estimated"
IMPORT = f"pipeline import {{}} videos/train {OPTIONS} --smplx SMPLX_NEUTRAL.npz"


def write_clip(clips, name, people, grey):
    """A clip, and an AlphaPose file of the people in it."""
    width, height = planted.SIZE
    images = [np.full((height, width, 3), grey, np.uint8) for _ in range(planted.N)]
    for frame, image in enumerate(images):
        image[100:120, 20 * frame : 20 * frame + 20] = 200
    encode(clips / f"{name}.mp4", images)
    results = []
    joints = [JOINTS["spin49"].index(joint) for joint in JOINTS["coco"]]
    for person in people:
        for frame, points in enumerate(planted.keypoints(person).kp_2d[:, joints]):
            found = {"image_id": f"{frame}.jpg", "category_id": 1, "score": 2.5, "idx": person + 1}
            results.append(found | {"keypoints": points.ravel().tolist()})
    file = clips / "keypoints" / f"{name}.mp4.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(results))


def places(folder):
    """Rows of each track."""
    split = cache.open(folder / "estimated")["videos/train"]
    return {track.name: (track.start, track.stop) for track in split.tracks}


def bodies(folder, video):
    """Rows of a clip with SMPL's and with SMPL-X's bodies."""
    split = cache.open(folder / "estimated")["videos/train"]
    counts = np.zeros(2, int)
    for track in split.tracks:
        if track.video == video:
            has_smpl = split.rows("has_smpl", track.start, track.stop)
            smplx = split.rows("smplx_pose", track.start, track.stop)
            counts += [int(has_smpl.sum()), int(np.isfinite(smplx).all(axis=1).sum())]
    return int(counts[0]), int(counts[1])


def first_import(terminal):
    types = terminal.types
    folder = terminal.folder
    terminal.install(KIT)
    clips = folder / "clips"
    for name, people, grey in (("walk", (0, 1), 20), ("run", (0, 1), 60), ("stand", (0,), 100)):
        write_clip(clips, name, people, grey)
    # so that the demo body may be used with them
    (clips / "STAND_IN.json").write_text('{"stand_in": true}')
    terminal.demo_data.body(folder / "body")
    planted.smplx_file(folder)
    planted.write(folder / "gvhmr", "gvhmr")
    planted.write(folder / "wham", "wham", clip="run")

    types(CONVERT, r"frames 60 kept of 60")
    without = f"pipeline import {FILES} videos/train {OPTIONS}"
    types(without, r"SMPL-X's.*--smplx SMPLX_NEUTRAL.npz", code=2)
    told = types(IMPORT.format(FILES), r"no ground truth: 36 rows with an estimate")
    assert "GVHMR's person 0" in told
    assert "likely" not in told
    assert (bodies(folder, "walk.mp4"), bodies(folder, "run.mp4")) == ((0, 12), (24, 0))
    assert bodies(folder, "stand.mp4") == (0, 0)
    types(IMPORT.format(FILES), r"up to date")


def marked(terminal):
    types = terminal.types
    folder = terminal.folder
    types("pipeline status --cache estimated", r"\(estimates of GVHMR, WHAM\)")
    show = "pipeline show videos/train --cache estimated --raw clips --body body"
    types(f"{show} --video walk.mp4 --out page.html", r"2 tracks of walk.mp4 in page.html")
    page = (folder / "page.html").read_text()
    assert "estimates of GVHMR, WHAM, no ground truth" in page
    assert "GVHMR&#39;s person 0" in page
    export = "pipeline export videos/train --cache estimated --format parquet --out tables"
    types(export, r"bodies are estimates of GVHMR, WHAM, no ground truth")
    export = "pipeline export videos/train --cache estimated --format"
    types(f"{export} rerun --out world.rrd --raw clips --body body", r"estimates of GVHMR, WHAM")
    extract = "pipeline extract videos/train --cache estimated --raw clips"
    types(f"{extract} --set features.streams=means", r"60 rows computed")
    types("pipeline verify --cache estimated")
    types("tasks report --cache estimated --out report.html")
    assert "estimates of GVHMR, WHAM" in (folder / "report.html").read_text()


def changed(terminal):
    types = terminal.types
    folder = terminal.folder
    before = places(folder)
    types(IMPORT.format(FILES.split()[0]), r"run\.mp4: wham_output\.pkl", code=2)

    # another clip of the same name, with one of the people
    write_clip(folder / "clips", "run", (1,), 140)
    types(CONVERT, r"run\.mp4: 12 of 24 rows left", code=1)
    types(f"{CONVERT} --drop-removed", r"1 changed video")
    told = types(IMPORT.format(FILES), r"12 rows with an estimate \(1 clip new or changed\)")
    assert "no track lies within 15%, but" in told
    assert "walk.mp4" not in told
    after = places(folder)
    for track, rows in before.items():
        if not track.startswith("run"):
            assert after[track] == rows
    assert bodies(folder, "run.mp4") == (12, 0)

    # another result
    planted.write(folder / "gvhmr", "gvhmr", planted.gvhmr(betas=planted.betas(0) + 0.1))
    types(IMPORT.format(FILES), r"12 rows with an estimate \(1 clip new or changed\)")
    last = places(folder)
    for track, rows in after.items():
        assert (last[track] == rows) == (not track.startswith("walk"))
    extract = "pipeline extract videos/train --cache estimated --raw clips"
    types(f"{extract} --set features.streams=means", r"12 rows computed.* 24 carried over")
    types(IMPORT.format(FILES), r"up to date")
    types("pipeline verify --cache estimated")


def test_results_of_other_tools(terminal):
    first_import(terminal)
    marked(terminal)
    changed(terminal)
