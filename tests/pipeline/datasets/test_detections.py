"""People of detections: each detection is in a track, or counted with a reason."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.accounting import VideoAccount
from pipeline.clips.labels.detections import CORNERS, Detections
from pipeline.clips.labels.people_table import ByFrame
from pipeline.clips.tracks.cleaning import Cleaning
from pipeline.datasets.shared.clips.bridging import bridge_gaps
from pipeline.datasets.shared.clips.people import PersonTrack, Rules, people
from tests.pipeline.datasets.by_hand import standing


@given(data=st.data(), boxes=st.booleans(), identified=st.booleans(), cleaned=st.booleans())
@settings(max_examples=30, deadline=None)
def test_every_detection_is_in_a_track_or_has_a_reason(data, boxes, identified, cleaned):
    n, rng = data.draw(st.integers(1, 40)), np.random.default_rng(data.draw(st.integers(0, 99)))
    corners = np.array([[-40, -40, 0.9], [0, 50, 0.9]])
    persons, identity = [], []
    for t in range(n):
        one = np.add(corners, [60 + t, 60, 0]) if boxes else standing("coco", 60 + t, 60)
        few = np.stack([np.add(one, [90 * p, 0, 0]) for p in range(rng.integers(1, 3))])
        seen = rng.uniform(0, 1, (len(few), 1) if boxes else few.shape[:2])
        few[..., 2] *= seen < rng.uniform(0.2, 1.2)
        persons.append(few)
        identity.append(rng.integers(0, 2, len(few)))
    skeleton = CORNERS if boxes else "coco"
    identities = ByFrame.join(identity) if identified else None
    no_hands = np.zeros((sum(map(len, persons)), 0, 3))
    keypoints = ByFrame.join(persons)
    found = Detections(skeleton, np.arange(n), keypoints, identities, range(n), no_hands)
    account = VideoAccount("a.mp4", found=found.n_persons)
    cleaning = Cleaning(min_frames=5, max_frames=20) if cleaned else None
    tracks = list(people(found, account, Rules(5, cleaning=cleaning)))
    account.check()
    in_tracks = sum(len(track.frame_index) for track in tracks)
    assert in_tracks + account.dropped.total() == found.n_persons


def test_bridged_frames_have_boxes_on_the_line_between_and_detected_ones_stay_as_they_are():
    frames = np.array([3, 4, 8, 20])
    rng = np.random.default_rng(0)
    bbox = rng.uniform(0, 100, (4, 4)).astype(np.float32)
    kp_2d = rng.uniform(1, 100, (4, 49, 3)).astype(np.float32)
    account = VideoAccount("a.mp4", found=4, kept=4)
    hands = kp_2d[:, 7:]
    person = PersonTrack(frames, rng.uniform(size=(4, 17, 3)), bbox, kp_2d, hands=hands)
    (bridged,) = bridge_gaps([person], 3, account)
    assert bridged.frame_index.tolist() == [3, 4, 5, 6, 7, 8, 20]  # 11 missing frames are too many
    is_detected = [True, True, False, False, False, True, True]
    np.testing.assert_array_equal(bridged.bbox[is_detected], bbox)
    np.testing.assert_array_equal(bridged.kp_2d[is_detected], kp_2d)
    np.testing.assert_array_equal(bridged.hands[is_detected], hands)
    assert not bridged.kp_2d[2:5].any() and not bridged.hands[2:5].any()
    quarters = np.array([[0.25], [0.5], [0.75]])
    np.testing.assert_allclose(bridged.bbox[2:5], bbox[1] + quarters * (bbox[2] - bbox[1]), 1e-5)
    assert (account.found, account.kept) == (7, 7)
    assert account.notes == ["3 frames between detections are predicted with interpolated boxes"]
