"""Trainings that go on with the data that they began with, while the cache changes."""

import os
import re
import shutil
import time
from dataclasses import replace

import pytest

import cache
from cache.format.pins import pins_of_runs
from pipeline.errors import DataError
from tests import made_splits
from tests.vibe_model.builders import TinyBody
from tests.vibe_model.training.conftest import drop_a_video, write
from tests.vibe_model.training.tiny_runs import Killed, Observer, assert_same_run, curves, killed_at
from vibe_model import runs
from vibe_model.training import video as training


@pytest.fixture(autouse=True)
def _tiny_body(monkeypatch):
    monkeypatch.setattr(training, "load_body", lambda folder: TinyBody())


@pytest.fixture
def config(mixed, of_windows, tmp_path):
    """In a cache of its own."""
    root = shutil.copytree(of_windows, tmp_path / "cache")
    places = {"cache": root, "runs": tmp_path / "runs"}
    on_cpu = {"device": "cpu", "threads": 1, "checkpoint_every": 2, "hold": "none"}
    return replace(mixed, **places, **on_cpu)


@pytest.fixture(scope="module")
def quiet(of_windows, tmp_path_factory):
    """The folder of an undisturbed run with some settings."""
    made = {}

    def run(config):
        if config.seed not in made:
            runs_folder = tmp_path_factory.mktemp("quiet")
            made[config.seed] = training.run(replace(config, cache=of_windows, runs=runs_folder))
        return made[config.seed]

    return run


def change(config, *names):
    """Commit splits without their first video; gc takes what only earlier commits name."""
    for name in names:
        split = cache.open(config.cache)[name]
        shards = range(len(split.rows_by_shard())) if len(split.videos) == 1 else ()
        with cache.SplitWriter(config.cache, name, columns=split.columns, plan="new") as writer:
            following = writer.begin(drop=split.videos.names[:1], invalidate=shards)
            following.commit(made_splits.DEMO)
    found = cache.gc(config.cache, pins=lambda: pins_of_runs(config.runs))
    assert not found.problems


def killed(config, nth_report):
    """The folder of the only run, as kill -9 leaves it when it reports for the n-th time."""
    return killed_at(training.run, config, nth_report, config.runs.parent / "aside")


def lines_of(config):
    """What a training says about its data; its folder."""
    said = []
    observer = Observer(lambda *_: None)
    observer.show_growth = said.append
    return training.run(config, progress=observer), said


def age(folder, days):
    """The run's state was saved so many days ago."""
    then = time.time() - days * 86400
    for file in (*folder.glob("pin-*"), folder / "last.pt"):
        os.utime(file, (then, then))


@pytest.mark.promise("resumable")
def test_killed_three_times_while_the_cache_changes_it_ends_with_the_bits_of_a_quiet_one(
    config, quiet
):
    expected = quiet(config)
    folder = killed(config, 5)
    for step, name in ((3, "b/train"), (4, "a/train")):
        change(config, name)
        assert runs.run_folder(config) == folder
        assert killed(config, step) == folder
    change(config, "m/train")

    def commit(progress, _):
        if progress.n_done in (11, 13):
            change(config, "c/train" if progress.n_done == 11 else "b/train")

    assert training.run(config, progress=Observer(commit)) == folder
    assert folder.name == expected.name
    assert_same_run(folder, expected)
    assert curves(folder) == curves(expected)


def test_the_result_of_a_command_stays_that_run_until_the_command_has_ended(config):
    folder = killed(config, 5)
    change(config, "b/train")
    training.run(config)
    assert runs.run_folder(config) == folder
    assert runs.is_complete(config)
    runs.close(config)
    assert runs.run_folder(config) != folder
    assert not runs.is_complete(config)
    assert not pins_of_runs(config.runs)


def test_a_finished_training_is_made_anew_on_changed_data_alone(config):
    first = training.run(config)
    write(config.cache, "d/train", [5])  # which the run does not read
    assert training.run(config) == first
    change(config, "b/train")
    again = training.run(config)
    assert again != first
    assert runs.is_finished(again)
    assert runs.run_folder(config) == again, "the newest"


def test_a_line_names_the_date_of_the_data_what_changed_since_and_the_folder(config):
    date = cache.open(config.cache)["m/train"].provenance["finished"]
    folder = killed(config, 5)
    assert lines_of(replace(config, runs=config.runs.parent / "other"))[1] == []
    change(config, "a/train", "c/train")
    resumed, (line,) = lines_of(config)
    assert resumed == folder
    assert re.match(
        rf"c/train, a/train: 2 of the videos were .* since {re.escape(date[:15])}", line
    )
    assert f"move {folder} away" in line


def test_a_cache_that_changes_is_told_once_at_the_next_epoch(config):
    lines = []

    def grow(progress, _):
        if progress.n_done == 2:
            drop_a_video(config.cache, "m/train")

    observer = Observer(grow, lambda progress, *_: lines.append(progress.epoch))
    observer.show_growth = lines.append
    training.run(config, progress=observer)
    assert lines[0] == 0
    assert lines[1].startswith("m/train: 1 of the videos were")
    assert lines[2:] == [1, 2]


def test_if_its_shards_are_gone_it_stops_and_says_so_until_its_folder_is_moved_away(config):
    folder = killed(config, 5)
    shutil.move(folder, config.runs.parent / "elsewhere")  # gc is not told of it
    change(config, "c/train")
    shutil.move(config.runs.parent / "elsewhere", folder)
    before = {file: file.read_bytes() for file in folder.glob("[a-z]*.*")}
    told = rf"{folder}: .*step 4.*c/train/frame_index/c/0.*move the folder away to begin anew"
    for _ in range(2):
        with pytest.raises(DataError, match=re.compile(told, re.IGNORECASE)):
            training.run(config)
    assert {file: file.read_bytes() for file in folder.glob("[a-z]*.*")} == before
    folder.rename(config.runs.parent / "moved")
    assert runs.run_folder(config) != folder


@pytest.mark.parametrize(("days", "goes_on"), [(29, True), (31, False)])
def test_a_run_of_more_than_thirty_days_is_begun_anew_with_a_line(days, goes_on, config):
    folder = killed(config, 5)
    age(folder, days)
    change(config, "b/train")
    resumed, lines = lines_of(config)
    assert (resumed == folder) == goes_on
    old = [line for line in lines if "begins anew" in line]
    assert [str(folder) in line for line in old] == [True] * (not goes_on)


def test_other_settings_another_cache_and_another_version_do_not_go_on_with_it(
    config, monkeypatch, tmp_path
):
    folder = killed(config, 5)
    change(config, "b/train")
    assert runs.run_folder(replace(config, checkpoint_every=1)) == folder, "it changes no number"
    assert runs.run_folder(replace(config, seed=9)) != folder
    elsewhere = shutil.copytree(config.cache, tmp_path / "elsewhere")
    assert runs.run_folder(replace(config, cache=elsewhere)) != folder
    monkeypatch.setattr(type(config), "VERSION", {**config.VERSION, "model": 99})
    assert runs.run_folder(config) != folder


def test_a_run_that_another_process_holds_is_busy_whatever_is_committed(config):
    tried = []

    def try_again(progress, _):
        if progress.n_done == 4:
            change(config, "b/train")
            with pytest.raises(cache.CacheError, match=f"process {os.getpid()}"):
                training.run(config)
            tried.append(True)

    training.run(config, progress=Observer(try_again))
    assert tried
    assert len(list(config.runs.iterdir())) == 1


def test_a_commit_before_the_first_step_is_trained_on(config, monkeypatch):
    """Between the opening of the splits and the copy of their manifests."""

    def commit_once(folder):
        monkeypatch.setattr(training, "load_body", lambda folder: TinyBody())
        change(config, "b/train")
        return TinyBody()

    monkeypatch.setattr(training, "load_body", commit_once)
    folder = training.run(config)
    runs.close(config)
    assert folder == runs.run_folder(config)


def test_a_training_that_saved_nothing_yet_begins_anew(config):
    def kill(*_):
        raise Killed

    with pytest.raises(Killed):
        training.run(replace(config, checkpoint_every=99), progress=Observer(kill))
    change(config, "b/train")
    (first,) = config.runs.iterdir()
    assert training.run(config) != first


def test_a_training_on_a_tag_goes_on_with_it_alone_beside_one_on_the_current_data(config, quiet):
    expected = quiet(config)
    cache.tag(config.cache, "cvpr")
    change(config, "b/train")
    current = killed(config, 5)
    aside = shutil.move(current, config.runs.parent / "other")
    on_tag = replace(config, at="cvpr")
    folder = killed(on_tag, 5)
    shutil.move(aside, current)
    change(config, "c/train")
    assert runs.run_folder(config) == current
    resumed, said = lines_of(on_tag)
    assert (resumed, resumed.name, said) == (folder, expected.name, [])
    assert_same_run(folder, expected)
    assert curves(folder) == curves(expected)


def test_on_a_tag_that_has_lost_rows_no_training_begins(config):
    cache.tag(config.cache, "cvpr")
    shard = cache.open(config.cache)["b/train"].open_stream("resnet50").shards[:1]
    cache.invalidate(config.cache, "b/train", "resnet50", shard)
    with pytest.raises(cache.CacheChanged, match=r"b/train.*since 20..-.*a tag has lost it"):
        training.run(replace(config, at="cvpr"))
