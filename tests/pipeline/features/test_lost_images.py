"""Images of a video's folder that give no features, as an interrupted resize or copy leaves them:
each way ends in the same exit code.
"""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_equal

from pipeline.features.spec import StreamSpec
from pipeline.processes.settings import Resources
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction
from tests.made_splits import track_of
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


EXTRACT = "extract penn_action/train --cache CACHE --weights untrained:0"


@pytest.mark.parametrize("kind", WAYS)
def test_extract_ends_with_1_if_images_give_no_features(kind, penn, types, network):
    lost = sorted(penn.frames("0003").iterdir())[5:]
    for file in lost:
        WAYS[kind](file)
    penn.convert()
    shown = types(EXTRACT, f"{len(lost)} rows without features: {kind}", code=1)
    assert lost[0].name in shown.replace(" ", "")
    expected = {"0001/0": [1] * 8, "0003/0": [1] * 5 + [0] * 3, "0005/0": [1] * 8}
    assert_equal(penn.rows("features/resnet50_ok"), expected)
    types(EXTRACT, "up to date")


def test_prepare_ends_with_1_if_an_image_gives_no_features(penn, types, network):
    cut(penn.frames("0003") / "000003.jpg")
    prepare = "prepare penn_action --raw RAW/penn_action --cache CACHE --weights untrained:0"
    types(prepare, "1 row without features: picture_truncated", code=1)
    types(prepare)


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
        tracks.append(track_of(f"a/{person}", {"frame_index": frames, "bbox": box}))
    write_split(tmp_path / "cache", "crowd/train", raw, {"a": tracks}, rows_per_shard=1024)
    plan = plan_extraction(tmp_path / "cache", "crowd/train", StreamSpec("colour", Colour()))
    (done,) = extract_together([plan], Resources(workers=1, batch_size=4))
    assert sum(done.problems.values()) == sum(crowds)
    assert done.computed == 0
