"""Images of a video's folder that give no features, as an interrupted resize or copy leaves them:
each way ends in the same exit code.
"""

import cv2
import numpy as np
import pytest

import cache
from pipeline.features.extract import extract_together
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from tests.pipeline.features.made_pictures import write_split
from tests.pipeline.features.made_up import Colour


def halve(file):
    halved = cv2.resize(cv2.imread(str(file)), None, fx=0.5, fy=0.5)
    file.unlink()  # it may be a link
    cv2.imwrite(str(file), halved)


def cut(file):
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-40])


WAYS = {"other_picture_size": halve, "picture_truncated": cut}


@pytest.mark.parametrize("kind", WAYS)
def test_extract_ends_with_1_if_images_give_no_features(kind, penn, ran, network):
    lost = sorted(penn.frames("0003").iterdir())[5:]
    for file in lost:
        WAYS[kind](file)
    penn.convert()
    place = ("extract", penn.name, "--cache", penn.root, "--weights", "untrained:0")
    shown = ran(*place, code=1).out
    assert f"{len(lost)} rows without features: {kind}" in shown
    assert lost[0].name in "".join(shown.split())
    split = cache.open(penn.root)[penn.name]
    ok = split.column("features/resnet50_ok")
    for track in split.tracks:
        expected = [True] * 5 + [False] * 3 if track.video == "0003" else [True] * 8
        assert [bool(value) for value in ok[track.start : track.stop]] == expected
    assert "up to date" in ran(*place).out


def test_prepare_ends_with_1_if_an_image_gives_no_features(penn, ran, network):
    cut(penn.frames("0003") / "000003.jpg")
    words = ("prepare", "penn_action", *penn.places, "--weights", "untrained:0")
    assert "1 row without features: picture_truncated" in ran(*words, code=1).out
    ran(*words)


def test_crowds_that_cannot_be_decoded_fill_small_batches(tmp_path):
    """They take more slots than a small batch has, and no row of them is computed."""
    crowds = (15, 256, 256)
    raw = tmp_path / "raw"
    (raw / "a").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for frame in range(len(crowds)):
        file = raw / f"a/{frame:06d}.png"
        cv2.imwrite(str(file), noise)
        cut(file)
    tracks = []
    for person in range(max(crowds)):
        frames = np.array([frame for frame, n in enumerate(crowds) if person < n])
        box = np.tile(np.array([32, 32, 20, 20], np.float32), (len(frames), 1))
        tracks.append(
            cache.TrackRows(
                name=f"a/{person}",
                video="a",
                step=1,
                fps=30.0,
                crop_scale=1.2,
                columns={"frame_index": frames, "bbox": box},
            )
        )
    write_split(tmp_path / "cache", "crowd/train", raw, {"a": tracks}, rows_per_shard=1024)
    plan = plan_extraction(tmp_path / "cache", "crowd/train", StreamSpec("colour", Colour()))
    (done,) = extract_together([plan], Resources(workers=1, batch_size=4))
    assert sum(done.problems.values()) == sum(crowds)
    assert done.computed == 0
