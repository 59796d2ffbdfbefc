"""`prepare` of a labelled dataset: what it takes for its features, and what it leaves as it is."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import cache
from pipeline.commands import prepare
from pipeline.errors import MissingAssets


def test_real_data_without_weights_become_tracks_and_keep_the_weights_that_they_are_given_once(penn, ran, network):
    penn.without_marker()
    words = ("prepare", "penn_action", "--raw", penn.raw, "--cache", penn.root)
    shown = ran(*words).out
    assert "no features: no weights are named" in shown
    assert shown.count("features none") == 2
    assert not cache.open(penn.root)["penn_action/test"].streams
    shown = ran(*words, "--weights", "untrained:0").out
    assert shown.count("✓ extract") == shown.count("UNTRAINED") == 2
    shutil.rmtree(penn.root / "penn_action/test")  # a split that is new has the features of the others
    shown = ran(*words).out
    assert "no features" not in shown
    assert "hours not known" not in shown, "another split has told the speed"
    assert penn.root.with_name(f"{penn.root.name}-penn_action-test.html").is_file()
    assert "✓ penn_action/train: up to date" in shown
    assert list(cache.open(penn.root)["penn_action/test"].streams) == ["resnet50"]
    shown = ran(*words, "--weights", "untrained:1", code=2)
    assert "was extracted differently" in shown.err


def test_one_split_that_cannot_be_converted_does_not_stop_the_others(penn, ran, network, monkeypatch):
    from pipeline.conversion import convert

    convert_plan = convert.convert

    def broken(plan: Any, **options: Any) -> Any:
        if plan.split == "train":
            raise OSError(28, "No space left on device", str(penn.root / "penn_action"))
        return convert_plan(plan, **options)

    monkeypatch.setattr(convert, "convert", broken)
    shown = ran("prepare", "penn_action", "--raw", penn.raw, "--cache", penn.root, code=1)
    (error,) = shown.err.splitlines()
    assert "no space left on its disk" in error
    assert cache.open(penn.root).splits == ("penn_action/test",)
    assert "✓ extract    penn_action/test" in shown.out


@pytest.fixture
def of_clips(tmp_path: Path) -> tuple[Any, ...]:
    """The command's words for a clip without keypoints."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").touch()
    where = ("--raw", tmp_path / "clips", "--cache", tmp_path / "cache")
    return ("prepare", "videos", *where, "--detector", "rtmpose")


def test_messages_about_a_detector_name_its_own_settings(of_clips: Any, ran: Any, monkeypatch: Any) -> None:
    assert "--set [rtmpose] size: unknown key" in ran(*of_clips, "--set", "rtmpose.size=3", code=2).err

    def identity(_: Any) -> Any:
        raise MissingAssets("weights '': expected a file, found none: --weights FILE.whl")

    monkeypatch.setattr(prepare.detect, "identity", identity)
    shown = ran(*of_clips, code=2).err
    assert "found none: --detector rtmpose --set rtmpose.weights=FILE.whl. Or name another --detector" in shown


def test_clips_on_a_read_only_disk_are_answered_with_a_folder_of_links(of_clips, ran, monkeypatch):
    monkeypatch.setattr(prepare.detect, "identity", lambda _: {})
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "folder of links to the clips (ln -s), and name it: --raw DIR" in ran(*of_clips, code=2).err
