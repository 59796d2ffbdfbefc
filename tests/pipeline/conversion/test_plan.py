"""`plan`: what would run, how much, and why; nothing is written, and nothing is read that a look can tell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

import cache
from pipeline import datasets, plug_ins
from pipeline.__main__ import main
from pipeline.accounting import Accounting, VideoAccount
from pipeline.commands.status import stream_status
from pipeline.conversion import plan as planning
from pipeline.conversion.differences import differing
from pipeline.datasets.penn_action import PennAction
from pipeline.features import plan as features_plan
from pipeline.features.spec import StreamSpec
from pipeline.features.weights import WeightsSpec
from pipeline.maintenance.overview import plan_split
from pipeline.raw import changes
from pipeline.raw.stand_in import MARKER
from pipeline.settings.targets import Wanted, by_folders, by_settings

ROOT = Path(__file__).parents[3]
NAME = "penn_action/train"


@pytest.fixture
def penn(embedded: Any, tmp_path: Path) -> Path:
    """A copy of the embedded Penn Action: videos 0001, 0003 and 0005 are of train, 8 frames each."""
    return embedded.copy("penn_action", tmp_path / "raw/penn_action")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cfg(penn: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a luigi.cfg: `cfg("[amass]\\nresampling = decimate")`."""

    def write(more: str = "", datasets: str = "penn_action", embedded: str = "false") -> Path:
        (tmp_path / "luigi.cfg").write_text(
            f"[paths]\nraw = raw\nbody = body\ncache = cache\nruns = runs\n[data]\ndatasets = {datasets}\n"
            f"[embedded]\nenabled = {embedded}\n{more}\n"
        )
        return tmp_path / "luigi.cfg"

    return write


def wanted(penn: Path, root: Path, stream: StreamSpec | None = None) -> Wanted:
    return by_folders("penn_action", "train", raw=penn, root=root, stream=stream)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def plan(penn: Path, root: Path, *more: object) -> int:
    return run("plan", "penn_action", "train", "--raw", penn, "--cache", root, *more)


def as_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def edit_label(penn: Path, name: str) -> None:
    """Move all joints by a pixel; the file stays as long as it is."""
    file = penn / f"labels/{name}.mat"
    label = {key: value for key, value in loadmat(file).items() if not key.startswith("__")}
    savemat(file, label | {"x": label["x"] + 1})


def test_before_the_first_conversion_everything_is_to_be_done(
    penn: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(penn, root, "--weights", "untrained:0") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == NAME
    assert told[1].startswith("  convert  6 videos to read of 6, ")
    assert told[2] == "    why    not converted before"
    assert told[3] == "  extract  resnet50: all that is converted then"
    assert not root.exists(), "a plan writes nothing"


def test_with_nothing_to_do_it_says_so_reads_no_content_and_changes_no_file(
    penn: Path,
    root: Path,
    into: Any,
    network: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    into.convert(root, penn)
    into.extract(root)
    before = into.everything(root)
    monkeypatch.setattr(changes, "video_digest", lambda *_: pytest.fail("read the content of an input"))
    assert plan(penn, root, "--weights", "untrained:0") == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        f"✓ {NAME}: nothing to do (3 videos, resnet50)",
        "nothing to do: 1 split converted and extracted (training is not looked at)",
    ]
    assert plan(penn, root, "--json") == 0
    (split,) = as_json(capsys)
    assert (split["nothing_to_do"], split["problems"]) == (True, [])
    assert split["convert"]["videos"] == {"read": 0, "of": 6, "kept": 6, "touched": 0}
    assert into.everything(root) == before


def test_new_changed_and_removed_videos_are_named_with_what_differs_of_them(
    penn: Path, root: Path, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("labels/0001.mat", "frames/0001"):
        shutil.move(penn / part, tmp_path / Path(part).name)
    into.convert(root, penn)
    for part in ("labels/0001.mat", "frames/0001"):
        shutil.move(tmp_path / Path(part).name, penn / part)
    size = (penn / "labels/0003.mat").stat().st_size
    with (penn / "labels/0003.mat").open("ab") as label:
        label.write(b"\0" * 8)
    (penn / "frames/0005/000008.jpg").unlink()
    (penn / "labels/0006.mat").unlink()
    shutil.rmtree(penn / "frames/0006")
    (penn / "labels/0004.mat").unlink()

    assert plan(penn, root, "--json") == 0
    (split,) = as_json(capsys)
    told = split["convert"]
    assert (told["new"], told["removed"]) == (["0001"], ["0006"])
    assert told["changed"] == {
        "0003": [f"labels/0003.mat: size was {size:,} bytes, is {size + 8:,}"],
        "0004": ["labels/0004.mat is missing"],
        "0005": ["frames/0005: held 8 files, holds 7"],
    }
    assert told["videos"] == {"read": 4, "of": 5, "kept": 1, "touched": 0}
    assert told["rows_again"] == 16, "0003 and 0005 have 8 rows each; 0004 is of test"
    assert told["bytes_again"] == 16 * (8 + 4 * 4 + 49 * 3 * 4)
    assert plan(penn, root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "    why    1 new video, 3 changed videos, 1 removed video"
    assert "    new      0001" in lines
    assert "    changed  0004: labels/0004.mat is missing" in lines
    assert "    removed  0006" in lines


def test_a_label_of_the_same_size_is_told_as_other_content(
    penn: Path, root: Path, into: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(root, penn)
    content = bytearray((penn / "labels/0003.mat").read_bytes())
    content[20] ^= 1  # in the header's text
    (penn / "labels/0003.mat").write_bytes(content)
    os.utime(penn / "labels/0003.mat", ns=(7, 7))
    assert plan(penn, root, "--json") == 0
    told = as_json(capsys)[0]["convert"]["changed"]
    assert told == {"0003": ["labels/0003.mat: as large as before, with other content"]}


def test_only_a_few_videos_are_named_unless_all_are_asked_for(
    penn: Path, root: Path, into: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(root, penn)
    for i in range(6):
        edit_label(penn, f"{i + 1:04d}")
    assert plan(penn, root) == 0
    told = capsys.readouterr().out
    assert told.count("    changed  ") == 5
    assert "and 1 more: plan --all" in told
    assert plan(penn, root, "--all") == 0
    assert capsys.readouterr().out.count("    changed  ") == 6


def test_times_alone_are_told_since_they_cost_a_reading_of_the_content(
    penn: Path, root: Path, into: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(root, penn)
    os.utime(penn / "labels/0003.mat", ns=(1, 1))
    assert plan(penn, root) == 0
    told = capsys.readouterr().out
    assert "nothing to do" in told
    assert "1 video of other times than at the commit, and the same content" in told


@pytest.mark.parametrize(("attribute", "part"), [("version", "version"), ("parameters", "parameters.fps")])
def test_another_reader_is_told_by_its_part(
    attribute: str,
    part: str,
    penn: Path,
    root: Path,
    into: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(PennAction, "parameters", lambda self: {"fps": 25})
    into.convert(root, penn)
    was = PennAction.version if attribute == "version" else 25
    value: Any = was + 1 if attribute == "version" else lambda self: {"fps": 26}
    monkeypatch.setattr(PennAction, attribute, value)
    assert plan(penn, root, "--json") == 0
    told = as_json(capsys)[0]["convert"]
    assert told["why"] == f"{part} was {was}, is {was + 1}"
    assert told["reader"] == [{"part": part, "was": was, "is": was + 1}]
    assert told["videos"] == {"read": 6, "of": 6, "kept": 0, "touched": 0}
    assert (told["new"], told["changed"], told["removed"]) == ([], {}, []), "all are read, whatever became of them"


def test_changed_source_code_alone_is_no_reason(
    penn: Path, root: Path, into: Any, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    into.convert(root, penn)
    into.extract(root)
    original = PennAction.read
    monkeypatch.setattr(
        PennAction, "read", lambda self, *rest: [*original(self, *rest)][:0]
    )  # other code, same version
    monkeypatch.setattr("pipeline.crops.crop_person", lambda *_, **__: pytest.fail("nothing may be computed"))
    found = plan_split(wanted(penn, root, StreamSpec()))
    assert found.nothing_to_do
    monkeypatch.setattr(PennAction, "version", PennAction.version + 1)
    assert not plan_split(wanted(penn, root, StreamSpec())).nothing_to_do


def test_rows_and_shards_that_a_stream_lacks_are_counted(
    penn: Path, root: Path, into: Any, network: Any, small_shards: None, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(root, penn)  # 24 rows in shards of 16
    assert plan(penn, root, "--weights", "untrained:0") == 0
    told = capsys.readouterr().out
    assert "  extract  resnet50: 24 of 24 rows in 2 shards, 96.4 KiB" in told
    into.extract(root)
    assert stream_status(cache.open(root)[NAME], "resnet50") == "resnet50 (untrained)"
    edit_label(penn, "0003")
    into.convert(root, penn)
    assert stream_status(cache.open(root)[NAME], "resnet50") == "resnet50 (untrained, lags behind)"
    assert plan(penn, root, "--weights", "untrained:0", "--json") == 0
    (stream,) = as_json(capsys)[0]["extract"]
    assert stream == {
        "stream": "resnet50",
        "why": "the split has changed",
        "identity": [],
        "shards": 1,
        "rows": 8,
        "carried_at_most": 8,
        "bytes": 8 * (2 * 2048 + 1 + 16),
    }


def test_without_weights_every_stream_counts_as_it_was_made(
    penn: Path, root: Path, into: Any, network: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(root, penn)
    into.extract(root, weights=WeightsSpec("untrained", "7"))
    assert plan(penn, root) == 0
    assert "nothing to do (3 videos, resnet50)" in capsys.readouterr().out


def test_other_weights_are_a_problem_that_names_the_part_and_exits_with_2(
    penn: Path, root: Path, into: Any, network: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(root, penn)
    into.extract(root)
    assert plan(penn, root, "--weights", "untrained:1") == 2
    told = capsys.readouterr().out
    assert (
        "✗ penn_action/train: the stream 'resnet50' was extracted otherwise: weights was untrained:0, is untrained:1. "
        in told
    )
    assert plan(penn, root, "--weights", "untrained:1", "--json") == 2
    assert as_json(capsys)[0]["extract"][0]["identity"] == [{"part": "weights.argument", "was": "0", "is": "1"}]


def test_real_data_and_an_untrained_network_of_luigi_cfg_are_a_problem_before_anything_is_converted(
    penn: Path, cfg: Any, into: Any, network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (penn / MARKER).unlink()
    file = cfg("[features]\nweights = untrained:0")
    for _ in ("before the conversion", "after it"):
        assert run("plan", NAME, "--config", file) == 2
        told = capsys.readouterr().out
        assert "[features] weights = untrained:0: an untrained network is for embedded data" in told
        assert "all that is converted then" not in told
        into.convert(tmp_path / "cache", penn)
    into.extract(tmp_path / "cache")  # by hand, which is allowed and marked
    assert run("plan", NAME, "--config", file) == 0, "nothing would be extracted, so nothing is refused"


def test_videos_of_another_split_are_not_counted(
    penn: Path, root: Path, into: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(root, penn)
    into.convert(root, penn, split="test")
    for split in ("train", "test"):
        of_split = cache.open(root)[f"penn_action/{split}"].manifest["accounting"]["videos"]["found"]
        assert run("plan", "penn_action", split, "--raw", penn, "--cache", root) == 0
        assert f"nothing to do ({of_split} videos)" in capsys.readouterr().out
    assert len(list((penn / "labels").iterdir())) == 6


def test_a_stream_that_nobody_extracts_by_itself_is_told_when_it_lags_behind_and_can_be_removed(
    penn: Path, root: Path, into: Any, network: Any, small_shards: None, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(root, penn)
    into.extract(root)
    into.extract(root, name="small")
    edit_label(penn, "0003")
    into.convert(root, penn)
    into.extract(root)
    assert plan(penn, root, "--weights", "untrained:0") == 0
    told = capsys.readouterr().out
    assert "! stream small lags behind by 8 rows" in told
    assert f"extract penn_action train --cache {root} --stream small" in told
    assert told.endswith("nothing to do: 1 split converted and extracted (training is not looked at)\n")
    assert plan(penn, root, "--weights", "untrained:0", "--json") == 0
    assert as_json(capsys)[0]["behind"] == [{"stream": "small", "rows": 8}]

    folder = root / NAME / "features/small"
    with pytest.raises(cache.CacheError, match=f"remove the stream: its folder, {folder}"):
        cache.compact(root, NAME)
    shutil.rmtree(folder)
    before = into.rows(root, NAME, "features/resnet50")
    assert cache.compact(root, NAME).after == 24
    assert run("verify", "--cache", root) == 0
    assert cache.open(root)[NAME].streams == ("resnet50",)
    after = into.rows(root, NAME, "features/resnet50")
    assert {name: rows.tobytes() for name, rows in after.items()} == {n: rows.tobytes() for n, rows in before.items()}
    capsys.readouterr()
    assert plan(penn, root, "--weights", "untrained:0") == 0
    assert "lags behind" not in capsys.readouterr().out


def test_what_conversion_brings_is_told_with_the_rows_that_are_known(
    penn: Path, root: Path, into: Any, network: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(root, penn)
    into.extract(root)
    edit_label(penn, "0003")
    assert plan(penn, root, "--weights", "untrained:0") == 0
    told = capsys.readouterr().out
    assert "extract  resnet50: what conversion brings, about 8 rows of changed videos among it" in told


@pytest.fixture
def dances(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A dataset of a package whose module is no Python: how it is told."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/dances_reader.py").write_text("def videos(:\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    entry = EntryPoint("dances", "dances_reader:Dances", datasets.ENTRY_POINTS)
    monkeypatch.setattr(plug_ins, "entry_points", lambda group: EntryPoints([entry] * (group == entry.group)))
    return "dataset 'dances' of dances_reader:Dances (of no known package) cannot be loaded: SyntaxError"


def test_a_broken_package_is_told_in_one_line_and_the_other_datasets_are_planned(
    dances: str, penn: Path, cfg: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = cfg("[dances]\nfps = 25", datasets="dances penn_action")
    assert run("plan", "--config", file) == 2
    told = capsys.readouterr()
    assert told.out.count("why    not converted before") == 2, "penn_action's two splits"
    (line,) = told.err.splitlines()
    assert line.startswith(f"! {dances}")
    assert run("plan", "penn_action", "--config", file) == 0
    assert capsys.readouterr().err == ""
    assert run("plan", "dances", "--config", file) == 2
    assert dances in capsys.readouterr().err


def test_a_broken_package_whose_rows_are_in_the_cache_does_not_end_status_nor_doctor(
    dances: str, penn: Path, root: Path, cfg: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(root, {"a": [3]}, split="dances/train")
    assert run("status", "--cache", root, "--json") == 0
    told = capsys.readouterr()
    assert [row["split"] for row in json.loads(told.out)] == ["dances/train"]
    assert told.err.startswith(f"! {dances}")
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(cfg(datasets="penn_action dances")))
    assert run("doctor", "--json") == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["examined"][0]["dataset"] == "penn_action"
    assert told.err.startswith(f"! {dances}")


def test_differences_are_told_in_words() -> None:
    before = {"kind": "small", "weights": "untrained"}
    now = {"kind": "resnet50", "precision": "fast", "weights": {"kind": "untrained", "argument": "0"}}
    assert [str(difference) for difference in differing(before, now)] == [
        "kind was small, is resnet50",
        "precision was not set, is fast",
        "weights was untrained, is untrained:0",
    ]


def test_luigi_cfg_says_what_is_planned_with_the_options_of_the_readers(
    penn: Path, embedded: Any, tmp_path: Path, cfg: Any, into: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded.copy("amass", tmp_path / "raw/amass")
    file = cfg("[amass]\nresampling = decimate", datasets="penn_action amass")
    assert run("plan", "--config", file, "--json") == 0
    assert [split["split"] for split in as_json(capsys)] == [NAME, "penn_action/test", "amass/train"]
    into.convert(tmp_path / "cache", tmp_path / "raw/amass", "amass")
    assert run("plan", "amass", "--config", file) == 0
    assert "why    parameters.resampling was slerp, is decimate" in capsys.readouterr().out
    assert run("plan", "amass/train", "--config", cfg(datasets="amass")) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "nothing to do: 1 split converted and extracted (training is not looked at)"
    )


def test_luigi_and_plan_read_the_same_of_luigi_cfg(cfg: Any, tmp_path: Path) -> None:
    from tasks.settings import load

    (tmp_path / "w.pt").write_bytes(b"weights")
    more = "[amass]\nresampling = decimate\n[features]\nweights = file:w.pt\nprecision = exact\nstream = mine"
    file = cfg(more, datasets="penn_action amass")
    theirs = load(file)
    for one in by_settings(file):
        assert one.dataset == theirs.dataset(one.dataset.name)
        assert (one.raw, one.root) == (theirs.raw(one.dataset.name), theirs.paths.cache)
        if one.dataset.has_pixels:
            assert one.stream is not None
            assert (one.stream.name, one.stream.identity()) == (theirs.stream.name, theirs.stream.identity())
        else:
            assert one.stream is None


def test_embedded_data_that_are_still_to_be_made_are_no_error(
    penn: Path, cfg: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", "--config", cfg(datasets="penn_action amass", embedded="true")) == 0
    told = capsys.readouterr().out.splitlines()
    at = told.index("amass/train")
    assert told[at + 1] == "  convert  all of it, once the embedded data are made: there is nothing to look at yet"


def test_one_split_that_cannot_be_planned_does_not_hide_the_others(
    penn: Path, cfg: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", "--config", cfg(datasets="amass penn_action")) == 2
    told = capsys.readouterr().out
    assert "✗ " in told.partition(NAME)[0]
    assert "why    not converted before" in told.partition(NAME)[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "penn_action", "--raw", "r", "--cache", "c"), "name the split and --cache"),
        (("plan", "penn_action", "train", "--raw", "r"), "name the split and --cache"),
        (("plan", "pen_action", "train", "--raw", "r", "--cache", "c"), "no dataset is called 'pen_action'"),
        (("plan", "penn_action", "val", "--raw", "r", "--cache", "c"), "penn_action has no split 'val'"),
        (("plan", "--weights", "untrained:0"), "--weights goes with --raw DIR"),
        (("plan", "--raw", "r", "--config", "luigi.cfg"), "Leave one of them out"),
        (("plan", "a", "b", "--raw", "r", "--cache", "c", "--precision", "fast"), "no dataset is called"),
    ],
)
def test_arguments_that_do_not_fit_together_are_told(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(("name", "said"), [("amass", "Enable it there"), ("pen", "Known: penn_action")])
def test_a_dataset_that_luigi_cfg_does_not_enable_is_told(
    name: str, said: str, penn: Path, cfg: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", name, "--config", cfg()) == 2
    assert said in capsys.readouterr().err


def test_planning_imports_no_torch() -> None:
    modules = "pipeline.maintenance.overview, pipeline.maintenance.accept, pipeline.commands"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ------------------------------------------------------------------------------------------------ what a stream lacks

LENGTHS = st.lists(st.lists(st.integers(1, 9), min_size=0, max_size=3), min_size=1, max_size=5)


def write(root: Path, videos: dict[str, list[int]], drop: tuple[str, ...] = (), split: str = "toy/train") -> None:
    """Commit videos with tracks of these lengths, in shards of 8 rows."""
    with cache.SplitWriter(
        root, split, columns=["bbox"], plan=str(videos), rows_per_shard=8, rows_per_chunk=4
    ) as writer:
        writer.begin(drop=drop)
        for name, lengths in videos.items():
            tracks = [
                cache.TrackRows(
                    name=f"{name}/{i}",
                    video=name,
                    step=1,
                    fps=25.0,
                    crop_scale=1.3,
                    columns={"frame_index": np.arange(n), "bbox": np.ones((n, 4), np.float32)},
                )
                for i, n in enumerate(lengths)
            ]
            writer.append(cache.VideoEntry(name=name, account=VideoAccount(name).as_dict()), tracks)
        writer.commit({"accounting": Accounting().totals(), "stand_in": True})


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(first=LENGTHS, second=LENGTHS, data=st.data())
def test_what_a_stream_lacks_is_what_its_writer_finds_pending(
    first: list[list[int]], second: list[list[int]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("lacks")
    write(root, {f"a{i}": lengths for i, lengths in enumerate(first)})
    with cache.StreamWriter(root, "toy/train", "s", dim=1, plan="p") as writer:
        for shard in data.draw(st.sets(st.sampled_from(writer.pending)) if writer.pending else st.just(set())):
            n = len(writer.rows(shard))
            writer.write(shard, np.ones((n, 1), np.float32), np.ones(n), np.zeros((n, 2), np.uint64))
        writer.commit({})
    write(
        root,
        {f"b{i}": lengths for i, lengths in enumerate(second)},
        drop=tuple(f"a{i}" for i in data.draw(st.sets(st.integers(0, len(first) - 1)))),
    )
    split = cache.open(root)["toy/train"]
    found = features_plan.missing_rows(split, "s")
    held = {int(shard) for shard in split.stream_manifest("s")["shards"]["s"]}
    with cache.StreamWriter(root, "toy/train", "s", dim=1, plan="p") as writer:
        assert found.shards == tuple(writer.pending)
        assert found.rows == sum(int(writer.live(shard).sum()) for shard in writer.pending)
        assert found.replaced == sum(int((~writer.live(shard)).sum()) for shard in held)
        assert features_plan.missing_rows(split, None).rows == split.manifest["rows"]


def test_a_commit_that_only_takes_away_leaves_a_stream_complete(
    penn: Path, root: Path, into: Any, network: Any
) -> None:
    into.convert(root, penn)
    into.extract(root)
    (penn / "labels/0005.mat").unlink()
    shutil.rmtree(penn / "frames/0005")
    into.convert(root, penn)
    assert plan_split(wanted(penn, root, StreamSpec())).nothing_to_do


def test_what_differs_of_a_stamp_is_told_input_by_input() -> None:
    was = "file 5 1 a.mat\nfolder 3 1 frames\nlabels 2 9 4 4 keys\nspan 8 1 0 4 records"
    assert changes.what_differs(was, was) == []
    now = "file -1 -1 a.mat\nfolder 3 2 frames\nlabels 2 9 5 4 keys\nspan 8 1 4 8 records\nfile 1 1 new.mat"
    assert changes.what_differs(was, now) == [
        "a.mat is missing",
        "frames: as many files as before, of another time",
        "keys: as many files as before, of another time",
        "records: its place in the file is another",
        "new.mat is one of its files now",
    ]
    assert changes.what_differs(now, was)[0] == "new.mat is one of its files no longer"
    for unknown in (None, "nonsense", "file 1 a.mat"):
        assert changes.what_differs(unknown, was) == ["its content; how its files looked at the commit is not known"]


def test_a_path_with_blanks_and_line_feeds_is_one_input(tmp_path: Path) -> None:
    from pipeline.raw import RawVideo

    name = "a b\nc 1.mat"
    (tmp_path / name).write_bytes(b"12345")
    (parsed,) = changes.parse(changes.stamp(tmp_path, RawVideo("v", (Path(name),)))).values()
    assert (parsed.kind, parsed.numbers[0], parsed.path) == ("file", 5, "a b\\nc 1.mat")


def test_stamps_are_given_back_as_they_were_remembered(tmp_path: Path) -> None:
    seen = {"0001": ("file 5 1 a.mat", "ab"), 'ä "\n': ("", "cd")}
    changes.write_stamps(tmp_path, "toy/train", seen)
    assert changes.read_stamps(tmp_path, "toy/train") == seen
    assert planning.committed_split(tmp_path, "toy/train") is None
