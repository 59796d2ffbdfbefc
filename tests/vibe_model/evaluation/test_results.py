import csv
import json

import numpy as np
import pytest
import torch

import cache
from vibe_model import VIBE
from vibe_model.evaluation import evaluate as evaluation
from vibe_model.evaluation import results
from vibe_model.evaluation.frame_errors import Means, TrackErrors
from vibe_model.evaluation.published import FIGURES, NOT_COMPARABLE, caption, figures_of
from vibe_model.metrics import ERRORS

NAN = float("nan")


class Frames:
    """A split of which only the source's frame numbers are asked: row r is frame 10 r."""

    def read(self, windows, stream, fields):
        assert (stream, fields) == (None, ("frame_index",))
        return {"frame_index": np.array([10 * np.arange(start, stop) for start, stop in windows])}


def estimate(track, rows, run):
    return evaluation.TrackEstimate(track, np.array(rows), np.array(run), *np.zeros((3, len(rows))))


def errors(pa_mpjpe, keypoints=None, **others):
    """Of frames with a PA-MPJPE each, nan where a frame does not count."""
    pa_mpjpe = np.array(pa_mpjpe, float)
    keypoints = np.zeros(len(pa_mpjpe)) if keypoints is None else np.array(keypoints, float)
    own = {"pa_mpjpe": pa_mpjpe, **{name: np.array(values, float) for name, values in others.items()}}
    return TrackErrors(~np.isnan(pa_mpjpe), keypoints, own, {"pa_mpjpe": 2 * pa_mpjpe})


@pytest.fixture
def track():
    return cache.TrackRecord("walk, slow/0", "walk, slow", 3, 50, 25.0, 1, 1.3)


def collected(*tracks, seqlen=2):
    found = results.SplitResults("a/test", Frames(), seqlen)
    for one, of_it in tracks:
        found.add(one, of_it)
    return found


def test_means_are_over_the_frames_that_have_an_error():
    means = Means().add(errors([10, NAN, 20], accel=[NAN, 4, NAN])).add(errors([60]))
    assert means.of() == {"pa_mpjpe": 30, "accel": 4}
    assert means.of("baseline") == {"pa_mpjpe": 60}
    assert (means.predicted, means.counted, means.counted_2d) == (4, 3, 0)
    assert Means().of() == Means().add(errors([NAN], accel=[NAN])).of() == {}


def test_a_frame_with_more_keypoints_weighs_more():
    means = Means().add(errors([NAN, NAN, NAN], keypoints=[1, 3, 0], pck_2d=[100, 0, NAN]))
    assert means.of() == {"pck_2d": 25}
    assert means.counted_2d == 2


def test_a_sequence_has_its_own_means_and_its_place_in_the_source(track):
    found = collected((estimate(track, [3, 4, 6], [0, 0, 1]), errors([10, 20, NAN], mpjpe=[1, 2, NAN])))
    assert found.sequences == [
        {
            "split": "a/test",
            "track": "walk, slow/0",
            "video": "walk, slow",
            "first_frame": 30,
            "last_frame": 60,
            "first_row": 3,
            "last_row": 6,
            "pa_mpjpe": 15.0,
            "mpjpe": 1.5,
            "frames_predicted": 3,
            "frames": 2,
            "frames_2d": 0,
        }
    ]


def test_the_worst_windows_come_first_and_lie_within_stretches(track):
    of_it = errors([1, 3, 8, 5, 7, 2])
    worst = collected((estimate(track, [3, 4, 5, 7, 8, 9], [0, 0, 0, 1, 1, 1]), of_it)).worst()
    # Windows of 2: rows 3-4, 4-5 (moved back), 7-8, 8-9 (moved back).
    assert [(row["first_row"], row["last_row"], row["pa_mpjpe"]) for row in worst] == [
        (7, 8, 6.0),
        (4, 5, 5.5),
        (8, 9, 4.5),
        (3, 4, 2.0),
    ]
    assert (worst[0]["first_frame"], worst[0]["last_frame"]) == (70, 80)


def test_windows_without_a_label_are_no_worst_windows_and_2d_ones_are_ranked_by_their_pck(track):
    keypoints = errors([NAN] * 6, keypoints=[2, 2, 2, 2, 0, 0], pck_2d=[100, 0, 50, 100, NAN, NAN])
    worst = collected((estimate(track, range(3, 9), [0] * 6), keypoints)).worst()
    assert [(row["first_row"], row["pck_2d"]) for row in worst] == [(3, 50), (5, 75)]


def test_of_equally_bad_windows_the_earlier_one_comes_first(track):
    worst = collected((estimate(track, range(3, 9), [0] * 6), errors([5] * 6))).worst()
    assert [row["first_row"] for row in worst] == [3, 5, 7]


def test_only_the_worst_windows_are_kept(track, monkeypatch):
    monkeypatch.setattr(results, "KEPT_WINDOWS", 3)
    badness = np.random.default_rng(0).permutation(40).astype(float)
    found = collected((estimate(track, range(3, 43), [0] * 40), errors(badness)), seqlen=1)
    assert [row["pa_mpjpe"] for row in found.worst()] == [39, 38, 37]


def test_a_track_without_a_prediction_has_no_row(track):
    found = collected((estimate(track, [], []), errors([])))
    assert found.sequences == found.worst() == []


def test_files_say_the_same_as_json_and_as_csv_and_say_that_they_are_of_stand_ins(track, tmp_path):
    found = collected((estimate(track, [3, 4], [0, 0]), errors([10, 20.126])))
    written = results.write(tmp_path / "run", [found], stand_in=True, about={"fingerprint": "0123"})
    assert sorted(path.name for path in written) == [
        *("sequences.csv", "sequences.json", "worst_windows.csv", "worst_windows.json")
    ]
    assert sorted(written) == sorted((tmp_path / "run").iterdir())
    for name in ("sequences", "worst_windows"):
        said = json.loads((tmp_path / "run" / f"{name}.json").read_text())
        assert (said["stand_in"], said["fingerprint"]) == (True, "0123")
        (row,) = said[name]
        (line,) = csv.DictReader((tmp_path / "run" / f"{name}.csv").read_text().splitlines())
        assert (line["track"], line["stand_in"]) == (row["track"], str(row["stand_in"])) == ("walk, slow/0", "True")
        assert (row["pa_mpjpe"], line["pa_mpjpe"]) == (pytest.approx(15.063), "15.06")
        assert line["pve"] == ""
        assert "pve" not in row


def test_files_without_a_single_row_are_files_too(tmp_path):
    results.write(tmp_path, [], stand_in=False, about={})
    assert json.loads((tmp_path / "worst_windows.json").read_text())["worst_windows"] == []
    assert (tmp_path / "sequences.csv").read_text().startswith("split,track,video,first_frame,")


@pytest.fixture
def root(tmp_path):
    random = np.random.default_rng(0)
    names = ["frame_index", "bbox", "kp_2d", "kp_3d_eval", "has_3d", "valid"]
    for split, with_3d in (("a/test", True), ("b/test", False)):
        columns = names if with_3d else names[:3]
        with cache.SplitWriter(tmp_path / "cache", split, columns=columns, plan="test") as writer:
            writer.begin()
            for number, n in enumerate((9, 3)):
                held = {
                    "frame_index": 7 + np.arange(n),
                    "bbox": np.tile(np.float32([100, 100, 80, 80]), (n, 1)),
                    "kp_2d": np.float32(random.uniform(60, 140, (n, 49, 3)) * [1, 1, 0.005]),
                    "kp_3d_eval": np.float32(random.normal(size=(n, 14, 3)) * 0.3),
                    "has_3d": np.ones(n, np.uint8),
                    "valid": (np.arange(n) != 2).astype(np.uint8),
                }
                facts = {"name": f"v{number}/0", "video": f"v{number}", "step": 1, "fps": 25.0, "crop_scale": 1.3}
                track = cache.TrackRows(**facts, columns={name: held[name] for name in columns})
                writer.append(cache.VideoEntry(name=f"v{number}", width=200, height=200), [track])
            writer.commit({"stand_in": True})
        with cache.StreamWriter(tmp_path / "cache", split, "tiny", dim=6, plan="test") as features:
            for shard in features.pending:
                n = len(features.rows(shard))
                features.write(shard, random.normal(size=(n, 6)), np.ones(n, bool), np.zeros((n, 2), np.uint64))
            features.commit({"stand_in": True})
    return cache.open(tmp_path / "cache")


def test_one_call_leaves_metrics_sequences_worst_windows_and_predictions(root, body, tmp_path):
    torch.manual_seed(0)
    model = VIBE(body, hidden_size=5, feature_size=6, regressor_size=7)
    folder = tmp_path / "run"
    found = evaluation.evaluate_all(
        model, dict(root), stream="tiny", seqlen=4, folder=folder, predictions=True, about={"fingerprint": "0123"}
    )
    assert (found["a/test"]["frames"], found["b/test"]["frames"], found["b/test"]["frames_2d"]) == (10, 0, 12)
    assert {name for name in ERRORS if name in found["b/test"]} == {"pck_2d"}
    sequences = json.loads((folder / "sequences.json").read_text())["sequences"]
    assert [(row["split"], row["track"], row["frames"]) for row in sequences] == [
        ("a/test", "v0/0", 8),
        ("a/test", "v1/0", 2),
        ("b/test", "v0/0", 0),
        ("b/test", "v1/0", 0),
    ]
    whole = found["a/test"]["pa_mpjpe"]
    assert (8 * sequences[0]["pa_mpjpe"] + 2 * sequences[1]["pa_mpjpe"]) / 10 == pytest.approx(whole)
    for row in sequences:
        with np.load(folder / row["predictions"]) as held:
            about = json.loads(str(held["about"]))
            assert held["frame_index"].tolist() == list(range(row["first_frame"], row["last_frame"] + 1))
        assert (about["split"], about["track"], about["stand_in"]) == (row["split"], row["track"], True)
        assert about["fingerprint"] == "0123"
    worst = json.loads((folder / "worst_windows.json").read_text())["worst_windows"]
    of_a = [row["pa_mpjpe"] for row in worst if row["split"] == "a/test"]
    assert of_a == sorted(of_a, reverse=True)
    assert len(of_a) == 4  # windows of 4 over tracks of 9 and 3 frames
    again = evaluation.evaluate_all(model, dict(root), stream="tiny", seqlen=4)
    assert again == found


def test_the_published_checkpoints_scores_are_the_papers():
    paper, checkpoint = (
        {f.split: f.errors for f in FIGURES if not f.with_3dpw and kind in f.model} for kind in ("paper", "checkpoint")
    )
    for split, scores in checkpoint.items():
        for name in scores.keys() & paper[split].keys():
            assert scores[name] == pytest.approx(paper[split][name], abs=0.1)
    assert checkpoint["3dpw/test"].keys() - paper["3dpw/test"].keys() == {"accel_error"}


def test_published_figures_are_found_by_split_and_training_data():
    (found,) = figures_of("3dpw/test", with_3dpw=True)
    assert found.errors == {"pa_mpjpe": 51.9, "mpjpe": 82.9, "pve": 99.1, "accel": 23.4}
    assert figures_of("penn_action/test") == []
    assert all(set(f.errors) <= set(ERRORS) for f in FIGURES)


def test_beside_stand_in_results_published_figures_say_that_they_do_not_compare():
    for figures in FIGURES:
        assert NOT_COMPARABLE in caption(figures, stand_in=True)
        assert caption(figures, stand_in=False) == figures.model
