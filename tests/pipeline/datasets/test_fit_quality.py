"""Others' SMPL fits that are off the joints, or of extreme shape, are no labels. Their rows
stay.
"""

from pathlib import Path

import numpy as np
import pytest

import cache
from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.people.body import Body
from tests.pipeline.datasets.by_hand import require
from tests.pipeline.datasets.label_files import edit_labels
from tests.pipeline.datasets.made_mpi_inf_3dhp import plant_fits, raw, read

__all__ = ["raw"]  # a fixture

FITS = "smpl_param/Human36M_subject1_smpl_param.json"
LEFT_KNEE = 3 * 4  # first of its numbers in `pose`


@pytest.fixture
def fitted(embedded, tmp_path):
    """Demo data: every second frame of S1's sequences has its true body, but for the last ones."""
    return Path(embedded.copy("h36m", tmp_path / "raw/h36m"))


def change_fits(folder, change, frames):
    def of_frames(stored):
        ((of_action,),) = ([*action.values()] for action in stored.values())
        for frame in frames:
            change(of_action[frame])

    edit_labels(folder / FITS, of_frames)


def bend_knee(fit):
    fit["pose"][LEFT_KNEE] += 1.5  # rad: the ankle moves by more than half a metre


def fatten(fit):
    fit["shape"][3] = -3.01


def labelled(raw, body=None):
    """The frames of S1's two tracks that have a body, and what is noted; all frames are kept."""
    report = Accounting()
    tracks = list(datasets.get("h36m").tracks(raw, "train", body=body, report=report))
    found = [track for track in tracks if track.name.startswith("S1/")]
    for track in found:
        assert len(track.frame_index) == 8
        assert np.isnan(track.pose[~track.has_smpl]).all()
        assert np.isfinite(track.pose[track.has_smpl]).all()
    notes = {note for account in report for note in account.notes}
    return [track.frame_index[track.has_smpl].tolist() for track in found], notes


def test_fits_that_are_more_than_25_mm_off_the_joints_are_counted_and_no_labels(fitted, embedded):
    change_fits(fitted, bend_knee, ("2", "8"))
    every = [0, 2, 4, 6, 8, 10, 12]
    assert labelled(fitted)[0] == [every] * 2, "without a body, nothing tells"
    frames, notes = labelled(fitted, Body.load(embedded.body))
    assert frames == [[0, 4, 6, 10, 12]] * 2
    assert "2 SMPL fits are over 25 mm off the joints: not used" in notes


def test_the_body_of_luigi_cfg_checks_fits_if_it_is_complete_and_of_the_same_kind(
    fitted, embedded, tmp_path, ran, luigi_cfg
):
    change_fits(fitted, bend_knee, ("2",))
    (tmp_path / "body").symlink_to(embedded.body)
    for body, is_checked in (("body", True), ("nobody", False)):
        root = tmp_path / f"cache-{body}"
        text = luigi_cfg("h36m", "[convert]\nworkers = 1").read_text()
        (tmp_path / "luigi.cfg").write_text(text.replace("body = body", f"body = {body}"))
        ran("convert", "h36m/train", "--raw", fitted, "--cache", root)
        split = cache.open(root)["h36m/train"]
        of_frame_2 = split.column("has_smpl")[:][split.column("frame_index")[:] == 2]
        assert of_frame_2.any() != is_checked
        shown = ran("plan", "h36m/train", "--cache", root).out
        assert "convert" not in shown and "extract" in shown, (
            "`plan`, `prepare` and Luigi take the same body"
        )


def test_a_split_without_fits_does_not_depend_on_the_body(fitted, embedded, tmp_path, ran):
    (fitted / FITS).unlink()
    words = [
        "convert",
        "h36m/train",
        "--raw",
        fitted,
        "--workers",
        "1",
        "--cache",
        tmp_path / "cache",
    ]
    ran(*words)
    assert "up to date" in ran(*words, "--body", embedded.body).out


def test_fits_with_a_beta_beyond_3_are_counted_and_no_labels(fitted, raw):
    change_fits(fitted, fatten, ("4",))
    frames, notes = labelled(fitted)
    assert frames == [[0, 2, 6, 8, 10, 12]] * 2
    assert "1 SMPL fits have a beta beyond 3: not used" in notes
    plant_fits(raw)  # NeuralAnnot's, of MPI-INF-3DHP
    file = raw / "MPI-INF-3DHP_SMPL_NeuralAnnot.json"
    edit_labels(file, lambda stored: fatten(stored["1"]["1"]["3"]))
    (track,) = require(read(raw), notes=["1 SMPL fits have a beta beyond 3: not used"])
    assert track.frame_index[~track.has_smpl].tolist() == [3]
