"""`prepare` of a labelled dataset: what it takes for its features, and what it leaves as it is."""

from __future__ import annotations

import shutil
from typing import Any

import cache


def test_real_data_without_weights_become_tracks_and_keep_the_weights_that_they_are_given_once(
    penn: Any, ran: Any, network: Any
) -> None:
    penn.without_marker()
    words = ("prepare", "penn_action", "--raw", penn.raw, "--cache", penn.root)
    shown = ran(*words).out
    assert "no features: nothing names the network's weights" in shown
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


def test_one_split_that_cannot_be_converted_does_not_stop_the_others(
    penn: Any, ran: Any, network: Any, monkeypatch: Any
) -> None:
    from pipeline.recipe import steps

    convert_split = steps.convert_split

    def broken(plan: Any, **options: Any) -> Any:
        if plan.split == "train":
            raise OSError(28, "No space left on device", str(penn.root / "penn_action"))
        return convert_split(plan, **options)

    monkeypatch.setattr(steps, "convert_split", broken)
    shown = ran("prepare", "penn_action", "--raw", penn.raw, "--cache", penn.root, code=1)
    (error,) = shown.err.splitlines()
    assert "no space left on its disk" in error
    assert cache.open(penn.root).splits == ("penn_action/test",)
    assert "✓ extract    penn_action/test" in shown.out
