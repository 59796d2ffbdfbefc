"""Bodies on a new video: what comes out is what the model says by hand, and mistakes are told before work begins."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import cache
from pipeline.cli.progress import silent
from pipeline.errors import PipelineError
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.pixels.frames import Video
from tasks.__main__ import main
from tasks.prediction import overlay, predict
from tasks.prediction.overlay import RECORD, PredictedBodies, seen
from tasks.prediction.trained import load, refuse_mixture
from tests.tasks.conftest import FakeNetwork
from tests.tasks.prediction.predicting import World, make_world, save_checkpoint, small_config, streams
from vibe_model.cameras import in_picture, project
from vibe_model.errors import CheckpointError, StandInMixed
from vibe_model.networks.generator import VIBE
from vibe_model.prediction.predict import TrackPrediction


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """A network that costs nothing, and no luigi.cfg but what a test writes."""
    monkeypatch.setattr(ResNet50, "load", lambda stream, machine, recorded: FakeNetwork(stream))
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(tmp_path / "none.cfg"))


@pytest.fixture(scope="module")
def made(world, tmp_path_factory) -> tuple[predict.Job, predict.Predicted]:
    """The whole of it, once. Only to be looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResNet50, "load", lambda stream, machine, recorded: FakeNetwork(stream))
        job = world.job(tmp_path_factory.mktemp("made"))
        predicted = world.predicted(job)
        predict.make_overlay(job, predicted, fps=None, progress=silent)
        return job, predicted


def files_of(job: predict.Job) -> list[dict]:
    return [dict(np.load(file)) for file in sorted((job.out / "bodies").glob("*.npz"))]


def frames_of(video: Path) -> list[np.ndarray]:
    found = [frame.image for frame in Video(video.parent, video.name).read(range(1000)) if frame.image is not None]
    assert found
    return found


# ------------------------------------------------------------------------------------------------------- bodies


def bodies_by_frame(job: predict.Job) -> dict[int, int]:
    return Counter(frame for file in files_of(job) for frame in file["frame_index"].tolist())


def test_every_person_frame_with_keypoints_has_a_body(world, tmp_path) -> None:
    job = world.job(tmp_path / "out", keypoints=world.keypoints, max_gap=0)
    world.predicted(job)
    found = world.found()
    assert bodies_by_frame(job) == {frame: n for frame, n in found.items() if n}
    assert max(found.values()) == 2


def test_where_a_detector_misses_a_person_for_a_moment_there_is_a_body_too(made, world) -> None:
    job, _ = made
    bodies, found = bodies_by_frame(job), world.found()
    assert sum(bodies.values()) > sum(found.values())  # the embedded detector misses some
    assert all(bodies[frame] >= n for frame, n in found.items())
    for file in files_of(job):
        assert (np.diff(file["frame_index"]) == 1).all()
        steps = np.abs(np.diff(file["bbox"][:, :2], axis=0)).max()
        assert steps < 0.2 * file["bbox"][:, 2].min()
    added = [n for n in job.split().videos[0].account["notes"] if "interpolated boxes" in n]
    assert sum(int(text.split()[0]) for text in added) == sum(bodies.values()) - sum(found.values())


def test_a_file_holds_what_the_model_says_when_it_is_called_by_hand(made) -> None:
    job, _ = made
    split = cache.open(job.root)["new_video/keypoints"]
    summary = json.loads((job.out / "predictions.json").read_text())
    assert len(summary["tracks"]) == len(split.tracks) == 2
    for track in split.tracks:
        window = np.array([[track.start, track.stop]])
        features = split.read(window, "resnet50", ["features"])["features"]
        with torch.no_grad():
            out = job.trained.generator(torch.from_numpy(features))
        (told,) = [entry for entry in summary["tracks"] if entry["name"] == track.name]
        file = np.load(job.out / told["file"])
        np.testing.assert_allclose(file["theta"], out["theta"][0].numpy(), atol=1e-5)
        np.testing.assert_allclose(file["joints_3d"], out["kp_3d"][0].numpy(), atol=1e-5)
        np.testing.assert_array_equal(file["frame_index"], split.rows("frame_index", track.start, track.stop))
        assert told["frames"] == len(file["theta"])
        assert (told["first"], told["last"]) == (file["frame_index"][0], file["frame_index"][-1])


def test_all_files_say_that_they_are_stand_ins_and_what_made_them(made) -> None:
    job, _ = made
    summary = json.loads((job.out / "predictions.json").read_text())
    for about in (summary, *(json.loads(str(file["about"])) for file in files_of(job))):
        assert about["stand_in"] is True
        assert about["checkpoint"]["file"] == "best.pt"
        assert about["features"]["weights"] == {"kind": "untrained", "argument": "0"}


def test_run_again_it_makes_neither_tracks_nor_features_anew(made, monkeypatch) -> None:
    job, _ = made
    monkeypatch.setattr(ResNet50, "load", lambda *_: pytest.fail("the network was loaded again"))
    assert predict.make_tracks(job, silent) is None
    assert predict.make_features(job, silent) is None


def test_boxes_in_place_of_keypoints_give_their_tracks(world, made, tmp_path) -> None:
    boxes = tmp_path / "boxes.csv"
    lines = [("frame", "track", "x", "y", "w", "h", "score")]
    lines += [(i, name, 20 + i, 10, 40, 100, 0.9) for i in range(3, 20) for name in ("ann", "bob")]
    with boxes.open("w", newline="") as stream:
        csv.writer(stream).writerows(lines)
    job = world.job(tmp_path / "out", boxes=boxes)
    predicted = world.predicted(job)
    assert [track["name"] for track in predicted.tracks] == [f"{world.video.stem}/{name}" for name in ("ann", "bob")]
    for file in files_of(job):
        np.testing.assert_array_equal(file["frame_index"], np.arange(3, 20))
        np.testing.assert_allclose(file["bbox"][0], [20 + 3 + 20, 60, 100, 100])  # square by the larger side
        assert json.loads(str(file["about"]))["crop_scale"] == 1.1


def test_tracks_that_are_no_longer_there_lose_their_files(world, tmp_path) -> None:
    boxes = tmp_path / "boxes.csv"
    for tracks in (("ann", "bob"), ("bob",)):
        lines = [f"{track},{i},20,10,40,100" for track in tracks for i in range(8)]
        boxes.write_text("track,frame,x,y,w,h\n" + "\n".join(lines))
        world.predicted(job := world.job(tmp_path / "out", boxes=boxes))
        assert len(list((job.out / "bodies").glob("*bob*.npz"))) == 1
        (job.out / "bodies/mine.npz").touch()
    (file,) = {*(job.out / "bodies").iterdir()} - {job.out / "bodies/mine.npz"}  # what is not ours stays
    assert json.loads(str(np.load(file)["about"]))["track"].endswith("/bob")


def test_a_folder_of_pictures_is_a_video_too(world, made, tmp_path) -> None:
    pictures, keypoints = tmp_path / "shots", tmp_path / "shots_json"
    pictures.mkdir()
    keypoints.mkdir()
    shutil.copy(world.raw / "STAND_IN.json", tmp_path)
    labels = sorted(world.keypoints.iterdir())
    for i, (image, label) in enumerate(zip(frames_of(world.video), labels, strict=True), start=1):
        cv2.imwrite(str(pictures / f"shot{i:04d}.png"), image[..., ::-1])
        shutil.copy(label, keypoints / f"shot{i:04d}_keypoints.json")
    job = world.job(tmp_path / "out", video=pictures, keypoints=keypoints)
    predicted = world.predicted(job)
    whole = made[1]
    assert [t["frames"] for t in predicted.tracks] == [t["frames"] for t in whole.tracks]
    by_video, by_pictures = files_of(made[0]), files_of(job)
    for one in by_pictures:  # lossless pictures of the same frames: the same bodies
        assert any(np.allclose(one["theta"], other["theta"], atol=1e-5) for other in by_video)
    assert predict.make_overlay(job, predicted, fps=None, progress=silent) == len(labels)


# ------------------------------------------------------------------------------------------------------ overlay


def test_the_overlay_has_the_frames_and_the_size_of_the_video_and_shows_bodies_where_they_are(made, world) -> None:
    job, predicted = made
    shown, plain = frames_of(job.out / "overlay.mp4"), frames_of(world.video)
    assert len(shown) == len(plain)
    assert shown[0].shape == plain[0].shape
    drawing = overlay.BodyDrawing.of(job.trained.generator)
    differs = inside = outside = 0.0
    for i, (with_bodies, without) in enumerate(zip(shown, plain, strict=True)):
        records = predicted.bodies.of_frames(i, i + 1)
        covered = np.zeros(without.shape[:2], bool)
        for record, verts in zip(records, drawing.vertices(records), strict=True):
            x, y = np.rint(seen(record, verts).pixels).astype(int).T
            there = (x >= 0) & (y >= 0) & (x < covered.shape[1]) & (y < covered.shape[0])
            covered[y[there], x[there]] = True
        differs = np.abs(with_bodies.astype(int) - without).mean(axis=2)
        far = cv2.dilate(covered.astype(np.uint8), np.ones((25, 25))) == 0
        far[-24:] = False  # what it says in its corner
        assert covered.sum() > 100
        inside, outside = inside + differs[covered].mean(), outside + differs[far].mean()
    assert inside > 5 * outside
    assert outside / len(shown) < 4  # of 255: what the codec loses


def test_vertices_land_where_the_model_projects_to() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.5, (2, 30, 3)).astype(np.float32)
    camera = np.array([[0.9, 0.1, -0.2], [0.5, -0.3, 0.4]], np.float32)
    bbox = np.array([[120, 80, 60, 60], [300, 200, 240, 240]], np.float32)
    crop = project(torch.from_numpy(points), torch.from_numpy(camera)).numpy()
    expected = in_picture(crop, bbox, crop_scale=1.3)
    for i in range(2):
        record = np.zeros((), RECORD)
        record["camera"], record["bbox"], record["crop_scale"] = camera[i], bbox[i], 1.3
        np.testing.assert_allclose(seen(record, points[i]).pixels, expected[i], atol=1e-2)


def test_who_is_nearer_is_painted_over_who_is_further_away(made) -> None:
    job, predicted = made
    record = predicted.bodies.of_frames(0, 1)[:1]
    both = np.concatenate([record, record])
    both["track"] = (0, 1)
    both["camera"][1, 0] *= 0.8  # the second one is smaller, so further away, within the first one's outline
    drawing = overlay.BodyDrawing.of(job.trained.generator, opacity=1.0)
    verts = drawing.vertices(both)
    canvas = np.zeros((256, 340, 3), np.uint8)
    one, other = drawing.paint(canvas, both, verts), drawing.paint(canvas, both[::-1], verts[::-1])
    np.testing.assert_array_equal(one, other)
    near = drawing.paint(canvas, both[:1], verts[:1])
    solid = cv2.erode((near.max(axis=2) > 0).astype(np.uint8), np.ones((3, 3))) > 0
    np.testing.assert_array_equal(one[solid], near[solid])


def test_bodies_come_by_frame_whatever_the_order_of_tracks(tmp_path) -> None:
    bodies, rng = PredictedBodies(tmp_path), np.random.default_rng(0)
    frames = [np.array([4, 5, 9]), np.array([0, 4]), np.array([9])]
    for track, index in enumerate(frames):
        n = len(index)
        shapes = {"bbox": (n, 4), "camera": (n, 3), "shape": (n, 10), "rotmat": (n, 24, 3, 3)}
        arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        arrays["camera"][:, 0] = track
        rows = np.arange(n)
        bodies.add(TrackPrediction(name="a", rows=rows, frame_index=index, run=rows, crop_scale=1.3, **arrays))
    found = [(r["frame"], r["track"]) for r in bodies.of_frames(4, 10)]
    assert found == [(4, 0), (4, 1), (5, 0), (9, 0), (9, 2)]
    assert all(r["camera"][0] == r["track"] for r in bodies.of_frames(0, 10))
    assert len(bodies.of_frames(10, 20)) == 0


def test_an_interrupted_overlay_leaves_no_file(made, world, monkeypatch, tmp_path) -> None:
    job, predicted = made
    frames = iter(range(5))

    def paint(*_):
        if next(frames) == 4:
            raise KeyboardInterrupt
        return np.zeros((256, 340, 3), np.uint8)

    monkeypatch.setattr(overlay.BodyDrawing, "paint", paint)
    file = tmp_path / "overlay.mp4"
    with pytest.raises(KeyboardInterrupt):
        overlay.write_overlay(file, job.source(), predicted.bodies, job.trained.generator)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------- errors


def told_by(capsys, *words: object) -> tuple[int, str]:
    code = main([str(word) for word in words])
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def test_without_keypoints_and_boxes_it_says_how_to_get_them(world, capsys) -> None:
    code, told = told_by(capsys, "predict", world.video, "--checkpoint", world.checkpoint)
    assert code == 2
    assert "expected --keypoints or --boxes, found neither" in told
    assert "OpenPose" in told
    assert "track,frame,x,y,w,h" in told


def test_keypoints_of_another_number_of_frames_are_refused(world, tmp_path) -> None:
    fewer = Path(shutil.copytree(world.keypoints, tmp_path / "fewer"))
    for file in sorted(fewer.iterdir())[20:]:
        file.unlink()
    job = world.job(tmp_path / "out", keypoints=fewer)
    with pytest.raises(PipelineError, match=r"fewer.*expected labels of the 28 frames of .*mp4, found 20"):
        predict.make_tracks(job, silent)


def test_mended_keypoints_are_read_again(world, tmp_path) -> None:
    mended = Path(shutil.copytree(world.keypoints, tmp_path / "mended"))
    last = max(mended.iterdir())
    good = last.read_text()
    last.write_text(good[: len(good) // 2])
    job = world.job(tmp_path / "out", keypoints=mended)
    with pytest.raises(PipelineError, match=rf"{last.name}.*expected JSON"):
        predict.make_tracks(job, silent)
    last.write_text(good)
    assert predict.make_tracks(job, silent).totals["tracks"]["kept"] == 2


def test_detections_without_anybody_are_told_with_the_reasons(world, tmp_path) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("track,frame,x,y,w,h\na,0,1,1,50,50\na,1,1,1,50,50\n")
    with pytest.raises(
        PipelineError, match=r"no person is left to predict: of 2 person-frames, 2 track_too_short\. .*--min-frames"
    ):
        predict.make_tracks(world.job(tmp_path / "out", boxes=boxes), silent)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"gen_state_dict": {}, "course": {}}, "found the state of a training"),
        ({"mposer_state_dict": {}, "epoch": 1}, "found a motion prior"),
    ],
)
def test_a_checkpoint_that_is_no_model_is_called_what_it_is(tmp_path, content, told) -> None:
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=rf"last\.pt: expected a model, {told}\. Name the best\.pt"):
        load(tmp_path / "last.pt", None)


def test_a_checkpoint_of_another_size_than_it_says_is_refused(tmp_path) -> None:
    save_checkpoint(tmp_path / "other.pt", small_config(), config=small_config(hidden_size=16).as_dict())
    with pytest.raises(CheckpointError, match=r"expected \(48, 2048\) floats, found \(24, 2048\)"):
        load(tmp_path / "other.pt", None, "cpu")


def test_a_model_for_features_of_another_size_is_refused_before_any_work(world, tmp_path) -> None:
    save_checkpoint(tmp_path / "small.pt", small_config(feature_size=512))
    with pytest.raises(PipelineError, match=r"expected features of 512 numbers.*which has 2048"):
        world.job(tmp_path / "out", load(tmp_path / "small.pt", None, "cpu"))
    assert list((tmp_path / "out").iterdir()) == []


def test_features_of_another_network_than_it_was_trained_on_are_refused(world, tmp_path) -> None:
    other = ResNet50().identity() | {"weights": {"kind": "untrained", "argument": "7"}}
    save_checkpoint(tmp_path / "seven.pt", features=other)
    job = world.job(tmp_path / "out", load(tmp_path / "seven.pt", None, "cpu"))
    predict.make_tracks(job, silent)
    with pytest.raises(PipelineError, match=r"trained on, weights untrained:7; found weights untrained:0\. Name"):
        predict.make_features(job, silent)


def test_features_of_the_network_that_it_was_trained_on_are_taken(world, tmp_path) -> None:
    save_checkpoint(tmp_path / "same.pt", features=ResNet50().identity())
    job = world.job(tmp_path / "out", load(tmp_path / "same.pt", None, "cpu"))
    predict.make_tracks(job, silent)
    assert predict.make_features(job, silent) is not None


@pytest.mark.parametrize("facts", [{"stand_in": False}, {"stand_in": ..., "config": ...}], ids=["ours", "published"])
def test_a_model_of_real_data_and_the_stand_in_body_are_not_mixed(tmp_path, facts) -> None:
    save_checkpoint(tmp_path / "real.pt", **facts)
    with pytest.raises(StandInMixed, match=r"the body .*: stand-in; the checkpoint .*real\.pt: not a stand-in"):
        load(tmp_path / "real.pt", None, "cpu")


def test_a_real_video_and_the_stand_in_model_are_not_mixed(world, tmp_path) -> None:
    video = shutil.copy(world.video, tmp_path / "mine.mp4")
    with pytest.raises(StandInMixed, match=r"mine\.mp4"):
        world.job(tmp_path / "out", video=Path(video))


def test_what_is_not_known_mixes_with_everything() -> None:
    assert refuse_mixture({"a": None, "b": True}) is True
    assert refuse_mixture({"a": None, "b": False}) is False


def test_a_checkpoint_without_a_configuration_is_built_with_the_published_sizes(tmp_path, monkeypatch) -> None:
    from pipeline.body import Body

    body = Body.stand_in()
    body._stands_in = False
    monkeypatch.setattr("tasks.prediction.trained.load_body", lambda folder: body)
    torch.save({"gen_state_dict": dict(VIBE(body).state_dict())}, tmp_path / "vibe.pth.tar")
    found = load(tmp_path / "vibe.pth.tar", None, "cpu")
    assert (found.kind, found.seqlen, found.stand_in) == ("vibe", 16, False)
    assert not found.generator.training


def test_spin_s_checkpoint_predicts_frame_by_frame(tmp_path, monkeypatch) -> None:
    from pipeline.body import Body

    body = Body.stand_in()
    body._stands_in = False
    monkeypatch.setattr("tasks.prediction.trained.load_body", lambda folder: body)
    tensors = {name.removeprefix("regressor."): t for name, t in VIBE(body, n_layers=0).state_dict().items()}
    torch.save({"model": {**tensors, "conv1.weight": torch.zeros(1)}}, tmp_path / "spin.pt")
    found = load(tmp_path / "spin.pt", None, "cpu")
    assert found.kind == "spin"
    features = torch.rand(1, 5, 2048)
    with torch.no_grad():
        together, alone = found.generator(features)["theta"][:, 2:3], found.generator(features[:, 2:3])["theta"]
    torch.testing.assert_close(together, alone)


def test_an_unknown_setting_in_a_checkpoint_is_told(tmp_path) -> None:
    save_checkpoint(tmp_path / "new.pt", config={**small_config().as_dict(), "of_tomorrow": 1})
    with pytest.raises(CheckpointError, match=r"new\.pt: 'config': unknown settings of_tomorrow"):
        load(tmp_path / "new.pt", None, "cpu")


# ------------------------------------------------------------------------------------------------- command line


def test_the_command_says_what_it_did_and_where_to_look(world, tmp_path, monkeypatch, capsys) -> None:
    from pipeline.body import Body

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.prediction.trained.load_body", lambda folder: Body.stand_in())
    words = ("predict", world.video, "--keypoints", world.keypoints, "--checkpoint", world.checkpoint)
    words = (*words, "--body", tmp_path, "--weights", "untrained:0", "--device", "cpu", "--out", "out")
    code, told = told_by(capsys, *words)
    assert code == 0, told
    done = [line.split()[1] for line in told.splitlines() if line.startswith("✓")]
    assert done == ["convert", "extract", "predict", "overlay"]
    assert "STAND-IN" in told
    assert "out/overlay.mp4" in told
    before = (tmp_path / "out/predictions.json").read_bytes()
    code, told = told_by(capsys, *words, "--no-overlay")
    assert code == 0, told
    assert [line.split()[1] for line in told.splitlines() if line.startswith("✓")] == ["predict"]
    assert not (tmp_path / "out/overlay.mp4").exists()  # it might have been of other bodies
    after = json.loads((tmp_path / "out/predictions.json").read_text())
    assert after == {**json.loads(before), "overlay": None}


def test_every_command_has_help_and_a_mistake_in_words_ends_in_one_line(capsys) -> None:
    for words in (["--help"], ["predict", "--help"], ["evaluate", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert "usage: python -m tasks" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["predict"])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_overlay_of_a_full_disk_is_told(made, monkeypatch, tmp_path) -> None:
    job, predicted = made

    class Full:
        def write(self, image: np.ndarray) -> None:
            """OpenCV says nothing."""

    from contextlib import contextmanager

    @contextmanager
    def writer(file, fps, width, height):
        Path(file).write_bytes(b"")
        yield Full()

    monkeypatch.setattr(overlay, "mp4_writer", writer)
    with pytest.raises(PipelineError, match="disk full"):
        overlay.write_overlay(tmp_path / "o.mp4", job.source(), predicted.bodies, job.trained.generator)
    assert list(tmp_path.iterdir()) == []


def test_streams_named_by_options_need_no_settings_file() -> None:
    (spec,) = predict.named_streams("untrained:3", "exact", "cpu")
    assert str(spec.stream) == "untrained:3, exact"
    assert spec.name == streams()[0].name
