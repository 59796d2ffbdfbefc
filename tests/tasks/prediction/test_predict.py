"""Bodies on a new video: the output is what the model returns by hand, and mistakes are reported
before work begins.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import cache
from pipeline.errors import CheckpointError, ConfigError, PipelineError, StandInMixed
from pipeline.features.streams.network import ResNet50
from pipeline.files.outputs import OutputRule, read_mark
from pipeline.files.raw import MARKER
from pipeline.settings.sections import load
from tasks.__main__ import main
from tasks.clip_links import clips_folder
from tasks.commands.predict import _default_folder
from tests.results import read_file
from tests.tasks.prediction.conftest import (
    SHORT,
    SPLIT,
    of_model,
    save_checkpoint,
    small_config,
    summary,
    the_body,
    without_settings,
)
from vibe_model.prediction import job as jobs
from vibe_model.prediction.videos import predict_videos
from vibe_model.trained import Trained
from vibe_model.vibe.networks import VIBE


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """A network that costs nothing, and no luigi.cfg but what a test writes."""
    without_settings(monkeypatch, tmp_path)


def files_of(job):
    return [dict(np.load(file)) for file in sorted((job.out / "bodies").glob("*.npz"))]


def tracks_of(job):
    (video,) = summary(job.out)["videos"]
    return video["tracks"]


def write_boxes(folder, *names):
    """One box for each name in frames 3 to 19."""
    rows = "".join(f"{i},{name},{20 + i},10,40,100,0.9\n" for i in range(3, 20) for name in names)
    (folder / "boxes.csv").write_text(f"frame,track,x,y,w,h,score\n{rows}")
    return folder / "boxes.csv"


# --------------------------------------------------------------------------------------------------
# bodies


def test_files_and_the_summary_hold_what_made_them_and_where_the_bodies_are(
    job,
):
    split = job.split
    whole = summary(job.out)
    for about in (whole, *(json.loads(str(file["about"])) for file in files_of(job))):
        assert about["stand_in"] is True
        assert about["checkpoint"]["file"] == "best.pt"
        assert about["features"]["weights"] == {"kind": "untrained", "argument": "0"}
    (video,) = whole["videos"]
    assert len(video["tracks"]) == len(split.tracks) == 2
    listed = {entry["name"]: entry for entry in video["tracks"]}
    for track in split.tracks:
        file = np.load(job.out / listed[track.name]["file"])
        frames = split.rows("frame_index", track.start, track.stop)
        assert_array_equal(file["frame_index"], frames)
        about = {"frames": len(frames), "first": frames[0], "last": frames[-1]}
        assert listed[track.name] == listed[track.name] | about


def test_boxes_give_their_tracks_and_files_of_earlier_tracks_alone_are_deleted(world, tmp_path):
    for people in (("ann", "bob"), ("bob",)):
        boxes = write_boxes(tmp_path, *people)
        words = ("--no-overlay", "--set", "convert.removed=drop")
        job = world.predicted(tmp_path / "out", *words, labels=boxes)
        assert [track["name"] for track in tracks_of(job)] == [
            f"{world.video.name}/{name}" for name in people
        ]
        for file in files_of(job):
            assert_array_equal(file["frame_index"], np.arange(3, 20))
            # square by the larger side
            assert_allclose(file["bbox"][0], [20 + 3 + 20, 60, 100, 100])
            assert json.loads(str(file["about"]))["crop_scale"] == 1.1
        assert len(list((job.out / "bodies").iterdir())) == len(people) + (people == ("bob",))
        np.savez(
            job.out / "bodies/mine.npz",
            frame_index=np.arange(3, 20),
            bbox=file["bbox"],
            about=file["about"],
        )
    assert (job.out / "bodies/mine.npz").exists()


def test_files_of_others_in_the_folder_stay_and_those_of_an_earlier_prediction_go(job, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    predict_videos(replace(job, out=out, overlay=False, export=True), lambda *_: None)
    motions = {name for name in paths_below(out) if name.startswith("motions/")}
    for file in (out / "bodies/mine.npz", outside / "b.npz"):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (out / "link").symlink_to(outside)
    about = read_file(out / "about.json")
    about["files"] += ["link/b.npz", "../outside/b.npz", str(outside / "b.npz")]
    (out / "about.json").write_text(json.dumps(about))
    before = paths_below(tmp_path)
    predict_videos(replace(job, out=out, overlay=False), lambda *_: None)
    assert before - paths_below(tmp_path) == {f"out/{name}" for name in motions}
    listed = {name for name in read_file(out / "about.json")["files"] if (out / name).is_file()}
    files = {track["file"] for track in tracks_of(replace(job, out=out))}
    assert listed == {"about.json", "predictions.json", *files}


@pytest.mark.parametrize("name", ["predictions.json", "overlay.html", "about.json"])
def test_a_file_of_others_in_the_place_of_one_of_its_own_is_replaced_by_overwrite_alone(
    job, tmp_path, name
):
    (tmp_path / name).write_text("{}")
    one = job.split.tracks[1].name  # drawing two people takes twice as long
    here = replace(job, out=tmp_path, overlay=name == "overlay.html", tracks=one)
    with pytest.raises(PipelineError, match=rf"{name}: expected nothing, or what `predict`"):
        predict_videos(here, lambda *_: None)
    assert paths_below(tmp_path) == {name}
    predict_videos(replace(here, rule=OutputRule("predict", overwrite=True)), lambda *_: None)
    predict_videos(here, lambda *_: None)
    if here.overlay:
        assert read_mark(tmp_path / name) == "vibe-pipeline predict"
    assert read_file(tmp_path / "about.json")["generator"] == "vibe-pipeline predict"


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_bodies_are_not_written_among_clips(world, tmp_path, capsys, overwrite):
    shutil.copy(world.video, tmp_path / "a.mp4")
    shutil.copy(world.raw / MARKER, tmp_path)
    shutil.copytree(world.keypoints, tmp_path / "keypoints/a.mp4")
    words = [*of_model(world.checkpoint, tmp_path), "--cache", tmp_path / "cache", *SHORT]
    words += ["--weights", "untrained:0", *overwrite, "--out", tmp_path]
    assert main([str(word) for word in ("predict", tmp_path, *words)]) == 2
    assert "In a raw folder, only a page" in capsys.readouterr().err
    assert not [*tmp_path.glob("bodies")]


@pytest.mark.parametrize("changes", [{"raw": Path("none")}, {"tracks": "none"}])
def test_a_call_that_predicts_nothing_leaves_an_earlier_prediction(job, tmp_path, changes):
    out = tmp_path / "out"
    out.mkdir()
    predict_videos(replace(job, out=out, overlay=False), lambda *_: None)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    with pytest.raises((cache.CacheError, PipelineError)):
        predict_videos(replace(job, out=out, **changes), lambda *_: None)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before


def test_a_file_in_the_place_of_a_clips_link_leaves_the_other_links(tmp_path):
    clip = tmp_path / "a.mp4"
    labels = tmp_path / "keypoints/a.json"
    labels.parent.mkdir()
    for file in (clip, labels):
        file.touch()
    places = (clip, tmp_path / "cache", tmp_path / "out")
    raw = clips_folder(*places)
    (raw / "a.mp4").unlink()
    (raw / "a.mp4").touch()
    with pytest.raises(ConfigError, match="Move the file away"):
        clips_folder(*places)
    assert (raw / "keypoints/a.mp4.json").resolve() == labels


def paths_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# --------------------------------------------------------------------------------------------------
# errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"gen_state_dict": {}, "training": {}},
            r"expected a model, found the state of a training\. Name the best",
        ),
        ({}, "expected one dict of tensors.*found keys: none"),
        (
            {"mposer_state_dict": {}, "epoch": 1},
            r"expected a model, found a motion prior\. Name the best\.pt",
        ),
        (
            {"config": small_config(hidden_size=16).as_dict()},
            r".*expected \(48, 2048\) floats, found \(24, 2048\)",
        ),
        (
            {"config": {**small_config().as_dict(), "of_tomorrow": 1}},
            r"'config': of_tomorrow: there is no such",
        ),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, content, message, monkeypatch):
    if "config" in content:
        save_checkpoint(tmp_path / "last.pt", **content)
    else:
        torch.save(content, tmp_path / "last.pt")
        monkeypatch.setattr(
            "vibe_model.trained.load_body", lambda _: pytest.fail("the body comes later")
        )
    with pytest.raises(CheckpointError, match=rf"last\.pt: {message}"):
        Trained.load(tmp_path / "last.pt", None, "cpu")


def test_features_must_be_of_the_size_and_the_network_that_the_model_was_trained_on(
    world, tmp_path, capsys
):
    save_checkpoint(tmp_path / "small.pt", small_config(feature_size=512))
    assert world.predict(tmp_path / "out", checkpoint=tmp_path / "small.pt") == 2
    identity = ResNet50().identity()
    save_checkpoint(
        tmp_path / "7.pt", features=identity | {"weights": {"kind": "untrained", "argument": "7"}}
    )
    assert world.predict(tmp_path / "out", checkpoint=tmp_path / "7.pt") == 2
    assert "trained on, weights untrained:7" in " ".join(capsys.readouterr().err.split())
    save_checkpoint(tmp_path / "same.pt", features=identity)
    assert world.predict(tmp_path / "out", "--no-overlay", checkpoint=tmp_path / "same.pt") == 0


@pytest.mark.parametrize(
    "facts", [{"stand_in": False}, {"stand_in": ..., "config": ...}], ids=["ours", "published"]
)
def test_real_data_and_demo_data_are_not_mixed(world, tmp_path, facts):
    save_checkpoint(tmp_path / "real.pt", **facts)
    with pytest.raises(StandInMixed, match=r"the body .*real\.pt"):
        Trained.load(tmp_path / "real.pt", None, "cpu")
    (raw := tmp_path / "mine").mkdir()
    with pytest.raises(StandInMixed, match="mine"):
        jobs.streams_to_prepare(
            world.trained, load(Path("none.cfg"), optional=True), raw, "untrained:0", None
        )


def test_published_checkpoints_are_built_with_the_published_sizes(tmp_path, monkeypatch):
    body = the_body()
    monkeypatch.setattr(body, "is_stand_in", False)
    torch.save({"gen_state_dict": dict(VIBE(body).state_dict())}, tmp_path / "vibe.pth.tar")
    vibe = Trained.load(tmp_path / "vibe.pth.tar", None, "cpu")
    assert (vibe.origin.kind, vibe.config.seqlen, vibe.stand_in) == ("vibe", 16, False)
    assert not vibe.generator.training
    tensors = {
        name.removeprefix("regressor."): t
        for name, t in VIBE(body, n_layers=0).state_dict().items()
    }
    torch.save({"model": {**tensors, "conv1.weight": torch.zeros(1)}}, tmp_path / "spin.pt")
    spin = Trained.load(tmp_path / "spin.pt", None, "cpu")
    assert spin.origin.kind == "spin"
    assert spin.config.n_layers == 0  # frame by frame


# -------------------------------------------------------------------------------------------------
# command line


def test_what_cannot_be_predicted_is_named(world, tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    model = of_model(str(world.checkpoint), str(tmp_path))
    for named, options, said in (
        ("notes.txt", model, "expected a clip"),
        ("videos/none", model, "found no such file, folder or split"),
        ("notes.txt", model[:2], "Name the body model's folder: --body DIR"),
    ):
        assert main(["predict", named, "--cache", "cache", *options]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["predict", "notes.txt", "--cache", "cache", *model, "--smooth", "0"])
    assert "expected a number above 0" in capsys.readouterr().err
    long = ("--set", "videos.min_frames=30")
    assert world.predict(tmp_path / "out", *long, labels=write_boxes(tmp_path, "ann")) == 2
    assert "no clip has a track to predict" in capsys.readouterr().err


def test_the_command_goes_on_and_predicts_again(world, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert world.predict(out) == 0
    shown = capsys.readouterr().out
    done = [line.split()[1] for line in shown.splitlines() if line.startswith("✓")]
    assert [step for step in done if step != "show"] == ["convert", "extract", "predict", "overlay"]
    assert "DEMO DATA" in shown
    assert "out/overlay.html" in shown
    before = (out / "predictions.json").read_bytes()
    monkeypatch.setattr(ResNet50, "load", lambda *_: pytest.fail("the network was loaded again"))
    assert world.predict(out, "--no-overlay") == 0
    shown = capsys.readouterr().out
    assert {"convert", "extract"}.isdisjoint(
        line.split()[1] for line in shown.splitlines() if line.startswith("✓ ")
    )
    assert not (out / "overlay.html").exists()  # it might have been of other bodies
    after, expected = read_file(out / "predictions.json"), json.loads(before)
    expected["videos"][0]["overlay"] = None
    assert after == expected


def test_a_single_clip_takes_its_own_keypoints_along(world, tmp_path, capsys):
    clips, name = world.clips(tmp_path / "clips"), "My dance** [dQw4w9WgXcQ].mp4"
    model = (*of_model(world.checkpoint, tmp_path), "--weights", "untrained:0")
    words = (
        "--cache",
        tmp_path / "cache",
        "--out",
        tmp_path / "out",
        "--no-overlay",
        *model,
        *SHORT,
    )

    def predicts(clip, code=0):
        assert main([str(word) for word in ("predict", clip, *words)]) == code
        return list(cache.open(tmp_path / "cache")[SPLIT].tracks.names)

    predicts(clips / world.video.name)
    links = tmp_path / "cache-clips"
    assert (links / world.video.name).is_symlink()
    assert not (links / "keypoints" / f"{world.video.name}.json").exists(), "nothing was detected"
    assert len(list((tmp_path / "out/bodies").iterdir())) == 2

    # another clip of the same name, in the same cache
    for folder, own in (("p", True), ("q", False)):
        (tmp_path / folder / "keypoints").mkdir(parents=True)
        shutil.copy(clips / MARKER, tmp_path / folder)
        (clip := tmp_path / folder / name).symlink_to(world.video)
        boxes = "".join(f"jane,{t},20,10,30,60\n" for t in range(28))
        file = f"{clip.stem}.csv" if own else "b.csv"
        (tmp_path / folder / "keypoints" / file).write_text(f"track,frame,x,y,w,h\n{boxes}")
        found = [track for track in predicts(clip) if track.startswith(name)]
        assert (found == [f"{name}/jane"]) is own
        assert (links / "keypoints" / f"{name}.csv").is_symlink() is own
        assert (links / "keypoints" / f"{name}.json").exists() is not own, (
            "the second clip's people are detected"
        )
    (tmp_path / "p" / name).with_suffix(".mov").symlink_to(world.video)
    predicts(tmp_path / "p" / name, code=2)
    assert "labels of one clip" in capsys.readouterr().err


def test_bodies_of_a_clip_and_of_folders_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("walk.1", "walk.2"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dance.mp4").touch()
    named = ("walk.1", "walk.2/", "dance.mp4", "videos/train")
    folders = [str(_default_folder(name)) for name in named]
    assert folders == ["walk.1-bodies", "walk.2-bodies", "dance-bodies", "videos-train-bodies"]
