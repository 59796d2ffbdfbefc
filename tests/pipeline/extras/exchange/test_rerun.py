"""`export --format rerun`: recordings are read back by Rerun's own reader and compared with the
cache.
"""

import shutil
from collections import defaultdict
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cache
from pipeline.__main__ import main
from pipeline.extras.exchange.formats import RERUN
from pipeline.show.drawing import NAMES
from pipeline.show.tracks import from_cache

RrdReader = pytest.importorskip(
    "rerun.chunk", reason="export --format rerun needs rerun-sdk: pip install -e '.[exchange]'"
).RrdReader

POINT = np.array([0.3, -0.2, 4.0])  # m, in the camera


@pytest.fixture(scope="module")
def root(exportable):
    """A cache with a moving camera, with motion without pictures, and with pictures alone."""
    for name in ("emdb/emdb1", "amass/train"):
        exportable(name)
    return exportable("penn_action/train")


def export(root, split, out, *options):
    words = ["export", split, "--cache", str(root), "--format", "rerun", "--out", str(out)]
    return main([*words, *(word for option in options for word in ("--option", option))])


def read(file):
    """Entity -> component -> frame (-1: static) -> its values."""
    content = defaultdict(lambda: defaultdict(dict))
    for chunk in RrdReader(str(file)).stream().to_chunks():
        batch = chunk.to_record_batch()
        names = [name for name in batch.schema.names if name == "frame" or ":" in name]
        columns = {name: batch.column(name) for name in names}
        columns = {
            name: column if name.startswith("Mesh3D") else column.to_pylist()  # that is slow
            for name, column in columns.items()
        }
        frames = columns.get("frame", [-1] * chunk.num_rows)
        for name, values in columns.items():
            if ":" in name:
                content[chunk.entity_path][name] |= dict(zip(frames, values, strict=True))
        if "time" in batch.schema.names:
            nanoseconds = batch.column("time").cast("int64").to_pylist()
            content[chunk.entity_path]["time"] |= dict(zip(frames, nanoseconds, strict=True))
    return content


def test_a_recording_holds_what_the_cache_holds(root, embedded, tmp_path):
    assert export(root, "emdb/emdb1", tmp_path / "a.rrd", f"body={embedded.body}", "tracks=1") == 0
    split, content = cache.open(root)["emdb/emdb1"], read(tmp_path / "a.rrd")
    track = split.tracks[0]
    video = split.videos[0]
    rows = {name: split.rows(name, track.start, track.stop) for name in split.columns}
    top, person = f"/{track.video}", track.name.removeprefix(f"{track.video}/")
    frames = rows["frame_index"].tolist()
    joints = content[f"{top}/camera/image/{person}/joints"]
    assert sorted(joints["Points2D:positions"]) == frames
    for i, frame in enumerate(frames):
        seen = np.flatnonzero(rows["kp_2d"][i, :, 2] > 0)
        assert_array_equal(joints["Points2D:positions"][frame], rows["kp_2d"][i, seen, :2])
        assert joints["Points2D:keypoint_ids"][frame] == seen.tolist()
        assert joints["time"][frame] == pytest.approx(frame / track.fps * 1e9, abs=1000)
        box = content[f"{top}/camera/image/{person}/box"]
        assert_array_equal(box["Boxes2D:half_sizes"][frame], rows["bbox"][i : i + 1, 2:] / 2)
        place = content[f"{top}/camera"]
        rotation = np.reshape(place["Transform3D:mat3x3"][frame], (3, 3)).T  # stored by columns
        point = POINT @ rotation.T + np.ravel(place["Transform3D:translation"][frame])
        back = rows["extrinsics"][i, :3, :3] @ point + rows["extrinsics"][i, :3, 3]
        assert_allclose(back, POINT, atol=1e-5)
    pinhole = content[f"{top}/camera/image"]["Pinhole:image_from_camera"][frames[0]]
    assert_allclose(np.reshape(pinhole, (3, 3)).T, np.asarray(track.intrinsics))
    verts = content[f"{top}/camera/{person}/body"]["Mesh3D:vertex_positions"][frames[0]]
    verts = np.array(verts.as_py())
    assert verts.shape == (6890, 3)
    assert np.abs(verts.mean(axis=0) - rows["trans"][0]).max() < 0.7  # m, about the pelvis
    for path, size in (
        (f"{top}/camera/image", (video.height, video.width, 3)),
        (f"{top}/crops/{person}", (224, 224, 3)),
    ):
        blob = np.array(content[path]["EncodedImage:blob"][frames[0]], np.uint8).ravel()
        picture = cv2.imdecode(blob, cv2.IMREAD_COLOR)
        assert picture is not None and picture.shape == size
    ((context,),) = content[top]["AnnotationContext:context"].values()
    names = [info["label"] for info in context[0]["class_description"]["keypoint_annotations"]]
    assert names == list(NAMES)


def test_motion_without_pictures_is_a_body(root, embedded, tmp_path):
    options = (f"body={embedded.body}", "tracks=1")
    assert export(root, "amass/train", tmp_path / "a.rrd", *options) == 0
    split = cache.open(root)["amass/train"]
    track = split.tracks[0]
    content = read(tmp_path / "a.rrd")
    (body,) = (entity for entity in content if entity.endswith("/body"))
    assert body == f"/{track.name}/body"
    frames = sorted(frame for frame in content[body]["Mesh3D:vertex_positions"] if frame >= 0)
    assert frames == split.rows("frame_index", track.start, track.stop).tolist()
    assert not [entity for entity in content if "image" in entity]


def test_a_person_without_a_row_in_a_frame_is_cleared(exportable, into, tmp_path):
    root = exportable("bedlam/train")
    name, other = cache.open(root)["bedlam/train"].tracks.names[:2]
    frames = into.rows(root, "bedlam/train", "frame_index")
    holes = sorted({*frames[name].tolist()} ^ {*frames[other].tolist()})
    assert holes, "of the second person two rows are missing"
    video, _, person = other.rpartition("/")
    assert export(root, "bedlam/train", tmp_path / "a.rrd", f"video={video}") == 0
    cleared = {
        (frame, person in path)
        for path, components in read(tmp_path / "a.rrd").items()
        for frame in components.get("Clear:is_recursive", {})
    }
    assert cleared == {(holes[0], True)}  # once, until the person is back


def test_what_a_row_lacks_is_cleared(root, embedded, tmp_path, monkeypatch, capsys):
    """The viewer shows the latest content of an entity until it is cleared."""
    raw = tmp_path / "raw"
    shutil.copytree(embedded.raw("emdb"), raw)
    frames = []

    def with_holes(*args, **options):
        shown = from_cache(*args, **options)
        (track,) = shown.tracks
        frames.extend(track.rows["frame_index"].tolist())
        rows = {name: values.copy() for name, values in track.rows.items()}
        rows["kp_3d"] = np.ones((track.n_frames, 49, 4))
        rows["has_3d"] = np.ones(track.n_frames)
        rows["has_3d"][1] = 0
        rows["trans"][2] = np.nan
        rows["bbox"][3] = np.nan
        rows["extrinsics"][4] = np.nan
        track.source.path(frames[5]).write_bytes(b"")
        return replace(shown, tracks=(replace(track, rows=rows),))

    monkeypatch.setattr("pipeline.extras.exchange.rerun.from_cache", with_holes)
    options = (f"body={embedded.body}", f"raw={raw}", "tracks=1")
    assert export(root, "emdb/emdb1", tmp_path / "a.rrd", *options) == 0
    assert "1 frame cannot be read from the raw folder" in " ".join(capsys.readouterr().out.split())
    content = read(tmp_path / "a.rrd")
    cleared = defaultdict(set)
    for path, components in content.items():
        for frame in components.get("Clear:is_recursive", {}):
            cleared[frames.index(frame)].add(path)
    track = cache.open(root)["emdb/emdb1"].tracks[0]
    top = f"/{track.video}"
    person = track.name.removeprefix(f"{track.video}/")
    assert cleared == {
        1: {f"{top}/pelvis/{person}/joints"},
        2: {f"{top}/camera/{person}/body"},
        3: {f"{top}/crops/{person}"},
        4: {f"{top}/camera"},
        5: {f"{top}/camera/image", f"{top}/crops/{person}"},
    }
    pinholes = content[f"{top}/camera/image"]["Pinhole:image_from_camera"]
    assert sorted(pinholes) == frames, "the image of frame 5 is cleared, its camera is not"


def test_a_video_can_be_chosen(root, tmp_path, capsys):
    name = cache.open(root)["penn_action/train"].tracks[0].video
    assert export(root, "penn_action/train", tmp_path / "a.rrd", f"video={name}") == 0
    content = read(tmp_path / "a.rrd")
    assert {entity.split("/")[1] for entity in content if not entity.startswith("/__")} == {name}
    for option in ("tracks=0", "video=nope"):
        assert export(root, "penn_action/train", tmp_path / "b.rrd", option) == 2
        assert option.partition("=")[0] in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["a.rrd"]


def test_without_the_package_its_extra_is_named(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(RERUN.packages, "rerun_of_nobody", "exchange")
    assert export(root, "penn_action/train", tmp_path / "a.rrd") == 2
    assert "vibe-pipeline[exchange]" in capsys.readouterr().err
