"""`status --digest` and `verify --digest`: a list that another machine compares with its cache."""

import json
import re

import pytest

import cache
from pipeline.errors import PipelineError
from pipeline.recipe.digests import read_list
from tests.cache.toy import rewrite


@pytest.fixture
def listed(penn, network, ran, tmp_path):
    penn.converted("fast")
    manifest = penn.root / penn.name / "features/resnet50/manifest.json"
    backbone = json.loads(manifest.read_text())["backbone"]
    rewrite(manifest, backbone={**backbone, "device": "Example CPU"})
    file = tmp_path / "digests.txt"
    file.write_text("# of our paper\n\n" + ran("status", "--cache", penn.root, "--digest").out)
    return file


def test_a_cache_that_another_one_was_copied_from_has_its_digests(penn, listed, ran, tmp_path):
    labels, stream = read_list(listed)
    assert (labels.split, labels.stream) == (penn.name, None)
    assert (stream.split, stream.stream) == (penn.name, "resnet50")
    lines = listed.read_text().splitlines()
    assert lines[-2].endswith("  labels  # demo data")
    hardware = "computed on Example CPU; other hardware may differ in the last bits"
    assert lines[-1].endswith(f"  features/resnet50  # untrained, {hardware}")
    cache.copy_split(penn.root, penn.name, tmp_path / "copy")
    shown = ran("verify", "--cache", tmp_path / "copy", "--digest", listed)
    assert shown.out.splitlines()[-1] == f"✓ 2 of 2 digests equal to {listed}"


def test_what_differs_is_named_with_what_to_do(penn, listed, ran):
    text = listed.read_text()
    listed.write_text(re.sub(r"\b[0-9a-f]{64}\b", "0" * 64, text))
    words = ("verify", "--cache", penn.root, "--digest", listed)
    shown = ran(*words, code=1)
    assert f"penn_action/train: labels: expected the digest {'0' * 64}, found" in shown.out
    assert "Other hardware and libraries compute other last digits (docs/digests.md)." in shown.out
    document = json.loads(ran(*words, "--json", code=1).out)
    assert (document["ok"], len(document["digest"])) == (False, 2)


def test_a_listed_split_that_is_missing_is_a_difference(penn, listed, ran):
    listed.write_text(listed.read_text().replace("penn_action/train", "penn_action/other"))
    shown = ran("verify", "--cache", penn.root, "--digest", listed, code=1)
    assert "penn_action/other: labels cannot be compared: " in shown.out
    shown = ran("verify", penn.name, "--cache", penn.root, "--digest", listed, code=2)
    assert "no digests of penn_action/train" in shown.err


def test_a_list_without_a_digest_is_refused(tmp_path):
    file = tmp_path / "digests.txt"
    file.write_text("# nothing\n")
    with pytest.raises(PipelineError, match=r"no digests\. Write a list"):
        read_list(file)
