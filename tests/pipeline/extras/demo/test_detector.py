"""The stand-in detector against the truth of the demo data."""

import numpy as np

from pipeline.clips import detectors
from pipeline.files.pixels.frames import Video
from pipeline.people.skeletons import convert, joint_names


def test_it_finds_the_joints_of_rendered_bodies(embedded):
    find = detectors.get("demo").load("cpu")
    errors = []
    for take in embedded.takes("kinetics"):
        for frame in Video(embedded.raw("kinetics"), take.shot.file).read(
            range(0, take.shot.n_frames, 4)
        ):
            assert frame.image is not None
            people = find([frame.image])[0].keypoints
            for actor in take.actors:
                truth = convert(actor.kp_2d[frame.index], source="spin49", target="coco")
                height = np.ptp(truth[:, 1])
                apart = np.linalg.norm(people[..., :2] - truth, axis=-1) / height  # (P, 17)
                apart = np.where(people[..., 2] > 0, apart, np.nan)
                if len(take.actors) == 1:  # two who cover each other are one to it
                    assert len(people) == 1
                if len(people) and np.nanmedian(apart, axis=1).min() < 0.1:
                    errors.append(apart[np.nanmedian(apart, axis=1).argmin()])
    assert len(errors) > 10
    of_joint = dict(zip(joint_names("coco"), np.array(errors).T, strict=True))
    for name, apart in of_joint.items():
        if name[1:] in ("eye", "ear"):
            assert np.isnan(apart).all(), name
        else:
            assert np.nanmedian(apart) < 0.05, name
            assert np.isfinite(apart).mean() > 0.45, name


def test_it_finds_nobody_in_an_empty_place():
    grey = np.full((120, 160, 3), 130, np.uint8)
    assert [len(people.boxes) for people in detectors.get("demo").load("cpu")([grey, grey])] == [
        0,
        0,
    ]
