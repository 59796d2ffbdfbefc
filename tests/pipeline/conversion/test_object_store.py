"""The pipeline into an object store: the same commands with a URL, the same cache."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline.__main__ import main
from pipeline.features.extract import extract
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import StreamSpec
from pipeline.settings.places import read_places
from tasks import settings
from vibe_model import runs, training
from vibe_model.settings.config import TrainConfig

pytest.importorskip("obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'")

NAME = "penn_action/train"
OF_WRITERS = (".writing", "provenance.json", "stamps.json")


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def objects(server: Any, url: str) -> dict[str, bytes]:
    """Every object that the promise of equal bytes holds for."""
    name, _, prefix = url.removeprefix("s3://").partition("/")
    pages = server.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=f"{prefix}/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    kept = (key for key in keys if not any(part in OF_WRITERS for part in key.split("/")))
    return {key.removeprefix(f"{prefix}/"): server.get_object(Bucket=name, Key=key)["Body"].read() for key in kept}


@pytest.fixture
def penn(embedded: Any, tmp_path: Path) -> Path:
    return Path(embedded.copy("penn_action", tmp_path / "raw/penn_action"))


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def convert_penn(raw: Path, root: object) -> None:
    assert run("convert", "penn_action", "train", "--raw", raw, "--cache", root, "--workers", 1) == 0


def both_steps(raw: Path, root: object) -> None:
    convert_penn(raw, root)
    assert run("extract", "penn_action", "train", "--cache", root, "--weights", "untrained:0") == 0


@pytest.mark.slow
def test_every_command_takes_a_url_and_makes_the_same_cache(
    url: str,
    server: Any,
    penn: Path,
    into: Any,
    network: Any,
    small_shards: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    both_steps(penn, url)
    both_steps(penn, tmp_path / "folder")
    assert objects(server, url) == into.tree(tmp_path / "folder")
    there, here = (cache.open(root)[NAME] for root in (url, tmp_path / "folder"))
    windows = here.windows(4, 2, "resnet50")
    np.testing.assert_array_equal(there.windows(4, 2, "resnet50"), windows)
    batch, wanted = there.read(windows), here.read(windows)
    for field, values in wanted.items():
        np.testing.assert_array_equal(batch[field], values)

    capsys.readouterr()
    assert run("status", "--cache", url) == 0
    assert NAME in capsys.readouterr().out
    assert run("verify", "--cache", url) == 0
    assert "intact" in capsys.readouterr().out
    assert run("plan", "penn_action", "train", "--raw", penn, "--cache", url) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run("retry", "--failed", "--cache", url) == 0
    assert "nothing to retry" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert run("show", "penn_action", "train", "--cache", url, "--out", page, "--tracks", 1, "--frames", 1) == 0
    assert page.stat().st_size
    assert run("export", "penn_action", "train", "--cache", url, "--format", "vibe", "--out", tmp_path / "penn.pt") == 0
    assert (tmp_path / "penn.pt").stat().st_size
    out, err = capsys.readouterr()
    assert "s3:/b" not in out + err  # as a path, a URL would lose a slash


@pytest.mark.slow
def test_a_second_run_writes_nothing_and_a_changed_label_costs_only_its_video(
    url: str, server: Any, penn: Path, small_shards: None, capsys: pytest.CaptureFixture[str]
) -> None:
    convert_penn(penn, url)
    before = objects(server, url)
    capsys.readouterr()
    convert_penn(penn, url)
    assert "up to date" in capsys.readouterr().out
    assert objects(server, url) == before
    changed = sorted((penn / "labels").iterdir())[0]
    shutil.copy(sorted((penn / "labels").iterdir())[1], changed)
    assert run("plan", "penn_action", "train", "--raw", penn, "--cache", url) == 0
    assert f"changed  {changed.stem}" in capsys.readouterr().out
    convert_penn(penn, url)
    assert "1 changed video" in capsys.readouterr().out
    after = objects(server, url)
    shards = {key for key in before if "/c/" in key and "/.copy/" not in key and key.split("/")[2] in cache.COLUMNS}
    assert shards
    assert all(after[key] == before[key] for key in shards)  # nothing committed is written again
    assert cache.verify(url).ok


def test_a_killed_conversion_goes_on_from_its_finished_shards(
    url: str, server: Any, penn: Path, into: Any, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(cache.SplitWriter, "commit", killed)
        into.convert(url, penn)
    assert cache.FeatureCache(url).splits == ()
    journalled: list[tuple[str, ...]] = []
    real = cache.SplitWriter.begin

    def begin(writer: cache.SplitWriter, *args: Any, **options: Any) -> None:
        real(writer, *args, **options)
        journalled.append(writer.journalled)

    monkeypatch.setattr(cache.SplitWriter, "begin", begin)
    into.convert(url, penn)
    assert len(journalled[0]) == 2  # videos of 8 frames, shards of 16
    into.convert(tmp_path / "calm", penn)
    assert objects(server, url) == into.tree(tmp_path / "calm")


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("s3://no-such-bucket/cache", "s3://no-such-bucket/cache.*NoSuchBucket"),
        ("ftp://host/cache", "ftp://host/cache: expected a folder, or a URL"),
    ],
)
@pytest.mark.parametrize("command", ["convert", "extract", "status", "verify", "retry", "show", "export"])
def test_a_mistaken_url_is_told_in_a_line_and_intact(
    command: str, root: str, told: str, server: Any, penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = [] if command in ("status", "verify", "retry") else ["penn_action", "train"]
    more: dict[str, list[object]] = {
        "convert": ["--raw", penn, "--workers", 1],
        "retry": ["--failed"],
        "show": ["--out", tmp_path / "page.html"],
        "export": ["--format", "vibe", "--out", tmp_path / "a.pt"],
    }
    assert run(command, *split, "--cache", root, *more.get(command, [])) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert re.search(told, shown), shown


# -------------------------------------------------------------------------------------------------- settings and tasks


def luigi_cfg(folder: Path, root: str, raw: Path) -> Path:
    file = folder / "luigi.cfg"
    file.write_text(
        f"[paths]\nraw = {raw}\nbody = body\ncache = {root}\nruns = runs\n[data]\ndatasets = penn_action\n"
        "[convert]\nworkers = 1\n[train]\npreset = embedded\n"
    )
    return file


def test_luigi_cfg_may_name_a_url(tmp_path: Path) -> None:
    file = luigi_cfg(tmp_path, "s3://bucket/some/cache", Path("raw"))
    loaded, places = settings.load(file), read_places(file)
    assert loaded.paths.cache == places.cache == "s3://bucket/some/cache"
    assert loaded.paths.raw == places.raw == tmp_path / "raw"
    for text, place in (("data/cache", tmp_path / "data/cache"), ("/data/cache", Path("/data/cache"))):
        file = luigi_cfg(tmp_path, text, Path("raw"))
        assert settings.load(file).paths.cache == read_places(file).cache == place


def test_a_training_run_remembers_a_url() -> None:
    config = TrainConfig.embedded(cache="s3://bucket/some/cache")
    stored = json.loads(json.dumps(config.as_dict()))
    assert stored["cache"] == "s3://bucket/some/cache"
    assert TrainConfig.from_dict(stored) == config


@pytest.mark.slow
def test_luigi_converts_and_extracts_into_a_bucket(
    url: str, penn: Path, tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import luigi
    from luigi.setup_logging import InterfaceLogging

    from tasks.data import Data

    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(luigi_cfg(tmp_path, url, penn.parent)))
    settings.settings.cache_clear()
    try:
        assert luigi.build([Data()], local_scheduler=True, log_level="WARNING")
    finally:
        settings.settings.cache_clear()
        InterfaceLogging._configured = False  # what it set up writes to this test's own stderr
        logging.getLogger("luigi-interface").handlers.clear()
    opened = cache.open(url)
    assert opened.splits == ("penn_action/test", NAME)
    assert all(split.streams == ("resnet50",) for split in opened.values())
    assert cache.verify(url).ok


@pytest.mark.slow
def test_training_reads_from_a_bucket(url: str, embedded: Any, into: Any, network: Any, tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        into.convert(url, embedded.raw("3dpw"), "3dpw", split, body=embedded.body)
        spec = StreamSpec()
        extract(plan_extraction(url, f"3dpw/{split}", spec))
    config = TrainConfig.embedded(
        cache=url,
        runs=tmp_path / "runs",
        datasets_2d=(),
        prior="none",
        seqlen=4,
        stride=2,
        strides={},
        batch_size=4,
        iterations=2,
        epochs=1,
        hidden_size=5,
        regressor_size=7,
        disc_size=4,
    )
    assert runs.missing(config) == []
    folder = training.run(config)
    assert runs.is_complete(config)
    assert json.loads((folder / "metrics.json").read_text())["3dpw/test"]["frames"] > 0
    assert runs.missing(TrainConfig.embedded(cache=f"{url}/elsewhere")) != []
