"""A stream of another cache, or an old one beside a split that was made anew, in a stream's place:
nothing is written into it, and `extract --replace` computes it again. Or no stream is there any more.
"""

import shutil

import pytest

pytestmark = pytest.mark.promise("other rows")

EXTRACT = "extract penn_action/train --cache CACHE --weights untrained:0"


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def beside_an_old_stream(penn, types, network):
    """A split that was made anew from fewer videos, and the stream of the former one."""
    penn.convert()
    types(EXTRACT)
    features = penn.root / penn.name / "features"
    old = penn.root.parent / "old"
    shutil.copytree(features, old)
    shutil.rmtree(penn.root)
    shutil.rmtree(penn.frames("0001"))
    (penn.raw / "labels/0001.mat").unlink()
    penn.convert()
    shutil.rmtree(features)
    shutil.copytree(old, features)
    return features


def test_every_command_names_a_stream_of_other_rows_and_replace_computes_it_again(
    beside_an_old_stream, penn, types
):
    before = contents(beside_an_old_stream)
    of_others = "of other rows in all shards"
    for command, code in {
        "status --cache CACHE": 1,
        "verify --cache CACHE": 1,
        "verify --cache CACHE --repair": 1,
        f"copy --cache CACHE --to {penn.root.parent / 'copy'}": 1,
        EXTRACT: 2,
    }.items():
        assert of_others in " ".join(types(command, code=code).split()), command
    after = contents(beside_an_old_stream)
    assert {file: after[file] for file in before} == before
    deleted_first = "penn_action/train: resnet50 is deleted before its 16 rows are computed again"
    types(f"{EXTRACT} --replace", deleted_first)
    types("status --cache CACHE")
    types("verify --cache CACHE")


def test_a_stream_whose_folder_is_gone_is_named_and_is_no_problem(penn, types, network):
    penn.convert()
    types(EXTRACT)
    shutil.rmtree(penn.root / penn.name / "features/resnet50")
    gone = r"resnet50: no such folder: mount its disk; if the stream was deleted, `gc` removes"
    types("status --cache CACHE", gone)
    types("verify --cache CACHE", gone)
    types("gc --cache CACHE", "2 paths removed")
    assert "no such folder" not in types("status --cache CACHE") + types("verify --cache CACHE")
