"""Estimated bodies become labels of the people whom they lie on, and stay marked."""

from pathlib import Path

import numpy as np
import pytest

import cache
from pipeline.__main__ import main
from pipeline.errors import PipelineError, RawDataError
from pipeline.exchange.bodies.importing import import_bodies
from tests.made_splits import track_of, write_split
from tests.pipeline.exchange import planted_bodies as planted

NAME = "videos/train"


def write_clips(root: Path, size: tuple[int, int] = planted.SIZE) -> None:
    """Two people in walk.mp4, and one in other.mp4."""

    def rows(video: str, person: int) -> cache.TrackRows:
        seen = planted.keypoints(person)
        box = np.column_stack([seen.kp_2d[:, 39, :2], seen.height, seen.height])
        columns = {
            "frame_index": seen.frame_index,
            "bbox": box.astype(np.float32),
            "kp_2d": seen.kp_2d.astype(np.float32),
        }
        return track_of(f"{video}/{person}", columns)

    videos = []
    for video, people in (("walk.mp4", (0, 1)), ("other.mp4", (0,))):
        entry = cache.VideoEntry(name=video, width=size[0], height=size[1], fingerprint="ab")
        videos.append((entry, [rows(video, person) for person in people]))
    write_split(root, NAME, videos)


@pytest.mark.parametrize("tool", ["wham", "vibe"])
def test_bodies_go_to_the_people_whom_they_lie_on(tmp_path: Path, tool: str) -> None:
    write_clips(tmp_path / "clips")
    file = planted.write(tmp_path, tool)
    done = import_bodies([file], tmp_path / "clips", tmp_path / "c", NAME, planted.BODY)
    assert (done.rows, done.with_body) == (3 * planted.N, 2 * planted.N)
    split = cache.open(tmp_path / "c")[NAME]
    for track in split.tracks:
        has_smpl = split.rows("has_smpl", track.start, track.stop)
        assert has_smpl.all() == (track.video == "walk.mp4")
        assert not split.rows("valid", track.start, track.stop).any()
        if track.video == "walk.mp4":
            person = int(track.name[-1])
            pose = split.rows("pose", track.start, track.stop)
            trans = split.rows("trans", track.start, track.stop)
            assert np.abs(pose - planted.pose(person)).max() < 1e-5
            assert np.abs(trans - planted.trans(person)).max() < 1e-3
    imported = split.manifest["reader"]["imported"]
    assert imported["estimates"]["walk.mp4"]["file"] == file.name
    again = import_bodies([file], tmp_path / "clips", tmp_path / "c", NAME, planted.BODY)
    assert again.why == ""


def test_ghosts_get_no_body_and_are_noted(tmp_path: Path) -> None:
    """Trap 5, and trap 7: PHALP's bodies are far away and lie on the people."""
    write_clips(tmp_path / "clips")
    file = planted.write(tmp_path, "phalp")
    done = import_bodies([file], tmp_path / "clips", tmp_path / "c", NAME, planted.BODY)
    assert done.with_body == 2 * planted.N - 3
    assert "PHALP's person 8: 3 frames: ghost" in done.notes["walk.mp4"]


def test_a_tool_that_ignored_the_rotation_flag_is_refused(tmp_path: Path) -> None:
    """Trap 15."""
    write_clips(tmp_path / "clips", planted.SIZE[::-1])
    file = planted.write(tmp_path, "phalp")
    with pytest.raises(RawDataError, match="rotation flag"):
        import_bodies([file], tmp_path / "clips", tmp_path / "c", NAME, planted.BODY)


def test_smplx_never_becomes_a_pose(tmp_path: Path) -> None:
    """Trap 2."""
    write_clips(tmp_path / "clips")
    file = planted.write(tmp_path, "gvhmr")
    with pytest.raises(RawDataError, match="SMPL-X"):
        import_bodies([file], tmp_path / "clips", tmp_path / "c", NAME, planted.BODY)


def test_bodies_off_the_people_are_refused_with_the_cause(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    content = planted.wham()
    for person in content.values():
        person["trans"] = person["trans"] * [1, 1, 0.5]
    file = planted.write(tmp_path, "wham", content)
    with pytest.raises(RawDataError, match="likely: "):
        import_bodies([file], tmp_path / "clips", tmp_path / "c", NAME, planted.BODY)


def test_results_of_no_clip_are_refused(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    file = planted.write(tmp_path, "wham")
    moved = file.parent.rename(tmp_path / "run") / file.name
    with pytest.raises(RawDataError, match="'run'"):
        import_bodies([moved], tmp_path / "clips", tmp_path / "c", NAME, planted.BODY)


def test_other_files_do_not_extend_an_import(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    for tool in ("wham", "vibe"):
        file = planted.write(tmp_path, tool)
        if tool == "wham":
            import_bodies([file], tmp_path / "clips", tmp_path / "c", NAME, planted.BODY)
            continue
        with pytest.raises(PipelineError, match="other files"):
            import_bodies([file], tmp_path / "clips", tmp_path / "c", NAME, planted.BODY)


def test_status_says_that_bodies_are_estimates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clips(tmp_path / "clips")
    file = planted.write(tmp_path, "wham")
    import_bodies([file], tmp_path / "clips", tmp_path / "c", NAME, planted.BODY)
    assert main(["status", "--cache", str(tmp_path / "c")]) == 0
    assert "(estimates of WHAM)" in " ".join(capsys.readouterr().out.split())
