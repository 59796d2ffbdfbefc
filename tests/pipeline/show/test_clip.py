"""`python -m pipeline show --out CLIP.mp4`: clips are read back, colours at joints that the test
has placed.
"""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import av
import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cache
from pipeline import datasets
from pipeline.errors import PipelineError
from pipeline.show import clip
from pipeline.show.bodies import _PosedBody, _weak_perspective
from pipeline.show.canvas import WHITE, Canvas
from pipeline.show.tracks import from_cache, from_raw
from pipeline.show.video_file import FOR_PAGES, FULL_SIZE, video_writer
from tests.pipeline.show.made_tracks import AT, made, shown, shown_split

GREY = 90  # of the pictures of `made`


def read(file):
    """(N, H, W, 3) frames and how many a second, of what browsers play."""
    with av.open(str(file)) as container:
        (stream,) = container.streams.video
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        return np.stack(
            [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        ), stream.average_rate


def written(tmp_path, *tracks, **changed):
    clip.write_clip(shown_split(tmp_path, *tracks, **changed), tmp_path / "clip.mp4")
    return read(tmp_path / "clip.mp4")


def of_rows(track, rows):
    """The track with these of its rows."""
    part = replace(
        track, frame_index=track.frame_index[rows], bbox=track.bbox[rows], kp_2d=track.kp_2d[rows]
    )
    return shown(part)


@pytest.mark.parametrize(("name", "more"), [("clip.mp4", ""), ("CLIP.MP4", " --video {}")])
def test_a_split_s_first_video_is_a_clip_that_browsers_play(name, more, root, tmp_path, types):
    video = cache.open(root)["penn_action/train"].tracks[0].video
    show = f"show penn_action/train --cache {root} --out TMP/{name}{more.format(video)}"
    types(show, "1 track of 0001, 8 frames, 8 with rows", "demo data")
    frames, rate = read(tmp_path / name)
    assert (len(frames), rate) == (8, 25)
    assert {side % 2 for side in frames.shape[1:3]} == {0}
    show = f"show amass/train --cache {root} --out TMP/none.mp4"
    types(show, "has no images for a clip", code=2)


def test_joints_have_the_colours_of_their_sides_and_frames_without_rows_are_marked(tmp_path):
    first = made(tmp_path, 9, size=(639, 401))
    moved = replace(made(tmp_path, 9, size=(639, 401)), name="f/1")
    moved.bbox[:, 0] += 200
    moved.kp_2d[..., 0] += 200
    frames, rate = written(tmp_path, of_rows(first, [1, 2, 3, 6]), of_rows(moved, [2, 3]))
    assert frames.shape == (9, 402, 640, 3) and rate == 25
    # right orange, left blue
    for joint, colour in (("rshoulder", (255, 138, 31)), ("lwrist", (61, 155, 255))):
        x, y = AT[joint]
        for index, frame in enumerate(frames):
            for position, rows in ((x, (1, 2, 3, 6)), (x + 200, (2, 3))):
                near = np.abs(frame[y, position].astype(int) - colour).max() < 60
                assert near == (index in rows), (joint, index)
    background = frames[:, 350, 600].mean(axis=1)
    assert background == pytest.approx(
        [GREY if i in (1, 2, 3, 6) else GREY / 2 for i in range(9)], abs=4
    )
    banded = frames[:, 2, 600].mean(axis=1) > GREY + 2  # grey at the top where a track has no row
    assert banded.tolist() == [i not in (2, 3) for i in range(9)]
    box = [frame[150, 300].astype(int) for frame in frames]  # the first one's upper edge
    assert [int(np.ptp(colour)) > 20 for colour in box] == [i in (1, 2, 3, 6) for i in range(9)]


def test_of_many_tracks_that_are_elsewhere_a_frame_names_the_first(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Canvas, "draw_band", lambda _, text: told.append(text))
    track = made(tmp_path, 9)
    written(tmp_path, *(of_rows(replace(track, name=f"f/{i}"), [i]) for i in range(9)))
    assert (told[0], told[8]) == ("no row: 1, 2, 3, 4, 5, ...", "no row: 0, 1, 2, 3, 4, ...")


def test_names_of_people_who_stand_close_do_not_cover_each_other():
    canvas = Canvas(np.zeros((400, 640, 3), np.uint8))
    for top in (203, 206, 200, 3, 5):
        canvas.draw_box(np.array([630, top]), np.array([635, 300]), "person_00001", WHITE)
    taken = canvas._labels
    assert len(taken) == 5
    assert np.array_equal(np.clip(taken, 0, [640, 400] * 2), taken), "inside the image"
    for a, b in combinations(taken, 2):
        assert (np.minimum(a[2:], b[2:]) <= np.maximum(a[:2], b[:2])).any()
    assert max(abs(int(box[3]) - 200) for box in taken[:3]) < 20


def test_frames_are_as_far_apart_as_rows_and_a_damaged_one_is_named(tmp_path):
    track = made(tmp_path, 11)
    (tmp_path / "f/000004.jpg").write_bytes(b"no picture")
    # of another size
    cv2.imwrite(str(tmp_path / "f/000006.jpg"), np.full((100, 100, 3), 200, np.uint8))
    frames, rate = written(tmp_path, of_rows(track, [0, 2, 4, 6]), stand_in=True)
    assert len(frames) == 6 and rate == Fraction(25, 2)
    assert [frame[2, 600].mean() > GREY + 2 for frame in frames] == [False] * 2 + [True] * 4
    assert_allclose(frames[3, 50:90, 90:], frames[2, 50:90, 90:], atol=25)
    marked = [(frame[-14:, :120].max() > 200) for frame in frames]
    assert all(marked)


def test_a_body_is_painted_where_its_labels_put_it(embedded, root, tmp_path, types):
    split = cache.open(root)["3dpw/train"]
    show = f"show 3dpw/train --cache {root} --out TMP/clip.mp4 --video '{split.tracks[0].video}'"
    clips = []
    for body in ("", f"--body '{embedded.body}'"):
        types(f"{show} {body}")
        clips.append(read(tmp_path / "clip.mp4")[0].astype(int))
    changed = np.abs(clips[1] - clips[0]).max(axis=-1) > 12
    for mask, joints in zip(changed, split.rows("kp_2d", 0, len(changed)), strict=True):
        seen = joints[joints[:, 2] > 0, :2].round().astype(np.int32)
        hull = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), cv2.convexHull(seen), 1)
        around = cv2.dilate(hull, np.ones((25, 25), np.uint8)) > 0
        assert mask[around].sum() > 0.9 * mask.sum()
        assert mask[hull > 0].mean() > 0.3


def test_the_weak_perspective_of_labels_without_a_camera_is_the_one_that_fits_the_joints():
    rng = np.random.default_rng(0)
    body = _PosedBody(rng.normal(size=(50, 3)), rng.normal(size=(49, 3)))
    kp_2d = np.concatenate([body.joints[:, :2] * 130 + (300, 200), np.ones((49, 1))], axis=1)
    kp_2d[10:, 2] = 0
    kp_2d[10:, :2] = 9999  # not visible: does not count
    pixels = _weak_perspective(body, kp_2d)
    assert_allclose(pixels, body.verts[:, :2] * 130 + (300, 200))
    kp_2d[3:, 2] = 0
    assert _weak_perspective(body, kp_2d) is None


def test_a_row_without_a_camera_of_its_own_has_the_track_s(embedded, into, tmp_path):
    raw, root = embedded.raw("bedlam"), tmp_path / "cache"
    into.convert(root, raw, "bedlam", body=embedded.body)
    split = cache.open(root)["bedlam/train"]
    video = split.tracks[0].video
    converted = from_cache(root, "bedlam/train", video).tracks[0]
    read_raw = from_raw(datasets.get("bedlam"), "train", raw, video).tracks[0]
    assert np.isnan(converted.rows["intrinsics"]).all()  # it does not zoom
    assert_array_equal(converted.intrinsics_of(0), split.tracks[0].intrinsics)
    assert_array_equal(read_raw.intrinsics_of(0), split.tracks[0].intrinsics)
    assert_array_equal(read_raw.rows["extrinsics"], converted.rows["extrinsics"])
    zooms = replace(
        converted, rows=converted.rows | {"intrinsics": np.stack([np.eye(3), 2 * np.eye(3)])}
    )
    assert_array_equal(zooms.intrinsics_of(1), 2 * np.eye(3))


def test_a_decoding_error_of_the_caller_is_not_called_a_file_that_cannot_be_written(tmp_path):
    error = av.InvalidDataError(1, "the clip that is read is damaged")
    with (
        pytest.raises(av.InvalidDataError) as raised,
        video_writer(tmp_path / "clip.mp4", 25.0, (64, 48)) as write,
    ):
        write(np.zeros((48, 64, 3), np.uint8))
        raise error
    assert raised.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_a_video_is_refused_before_images_are_made(tmp_path):
    folder = tmp_path / "clip.mp4"
    folder.mkdir()
    refusal = r"clip\.mp4: expected a file .* found a folder .* Name another"
    with pytest.raises(PipelineError, match=refusal), video_writer(folder, 25.0, (64, 48)):
        pytest.fail("images are made")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("size", "on_page"), [((1281, 720), (960, 540)), ((600, 1201), (600, 1202)), ((64, 48),) * 2]
)
def test_videos_of_pages_are_at_most_960_px_wide_and_others_keep_their_size(
    tmp_path, size, on_page
):
    width, height = size
    columns = np.linspace(0, 255, width)[None, :, None]
    image = np.broadcast_to(columns, (height, width, 3)).astype(np.uint8)
    for encoding in (FULL_SIZE, FOR_PAGES):
        with video_writer(tmp_path / "clip.mp4", 25.0, size, "", encoding) as write:
            for _ in range(40):
                write(image)
        with av.open(str(tmp_path / "clip.mp4")) as container:
            (stream,) = container.streams.video
            found = stream.width, stream.height
            packets = [packet for packet in container.demux(stream) if packet.size]
        if encoding is FULL_SIZE:
            assert found == (width + width % 2, height + height % 2)
            continue
        assert found == on_page
        assert all(packet.pts == packet.dts for packet in packets)  # no frame needs a later one
        assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, 30]
        shown, _ = read(tmp_path / "clip.mp4")
        middle = shown[20, found[1] // 2, :, 1].astype(int)
        assert_allclose(
            middle, np.interp(np.arange(found[0]) + 0.5, [0, found[0]], [0, 255]), atol=9
        )
