"""`status --digest` and `verify --digest`: a list that another machine compares with its cache."""

import re

import pytest

import cache


@pytest.fixture
def listed(penn, network, command_line, tmp_path):
    penn.converted("fast")
    file = tmp_path / "digests.txt"
    file.write_text("# of our paper\n\n" + command_line("status --cache CACHE --digest").out)
    return file


VERIFY = "verify --digest TMP/digests.txt --cache"


def test_a_cache_that_another_one_was_copied_from_has_its_digests(penn, listed, types, tmp_path):
    lines = listed.read_text().splitlines()
    assert lines[-2].endswith(f"  {penn.name}  labels  # demo data")
    assert lines[-1].endswith(f"  {penn.name}  features/resnet50  # untrained")
    cache.copy_split(penn.root, penn.name, tmp_path / "copy")
    assert types(f"{VERIFY} TMP/copy").endswith(f"✓ 2 of 2 digests equal to {listed}")


def test_what_differs_is_named_with_what_to_do(listed, types, types_json):
    text = listed.read_text()
    listed.write_text(re.sub(r"\b[0-9a-f]{64}\b", "0" * 64, text))
    differs = f"penn_action/train: labels: expected the digest {'0' * 64}, found"
    why = "Other hardware and libraries compute other last digits (docs/digests.md)."
    types(f"{VERIFY} CACHE", differs, why, code=1)
    document = types_json(f"{VERIFY} CACHE", code=1)
    assert (document["ok"], len(document["digest"])) == (False, 2)


def test_a_listed_split_that_is_missing_is_a_difference(listed, types):
    listed.write_text(listed.read_text().replace("penn_action/train", "penn_action/other"))
    types(f"{VERIFY} CACHE", "penn_action/other: labels cannot be compared: ", code=1)
    types(f"{VERIFY} CACHE penn_action/train", "no digests of penn_action/train", code=2)


def test_a_list_without_a_digest_is_refused(listed, types):
    listed.write_text("# nothing\n")
    types(f"{VERIFY} CACHE", "no digests. Write a list", code=2)
