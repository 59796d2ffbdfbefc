"""A stream that a tag needs is not replaced, and no row is computed for that."""

from tests.trees import contents

EXTRACT = "extract penn_action/train --cache CACHE --weights untrained:0"


def test_replace_stops_and_names_the_tag(penn, types, network):
    penn.convert()
    types(EXTRACT)
    types("tag cvpr --cache CACHE", "cvpr")
    before = contents(penn.root)
    stream = "tags/cvpr/penn_action/train/features/resnet50"
    network.batches.clear()
    said = types(f"{EXTRACT} --replace", code=2)
    assert stream in said
    assert "tag NAME --delete" in said
    assert contents(penn.root) == before
    assert not network.batches
    types(EXTRACT)
    types(f"{EXTRACT} --stream other --kind resnet50 --replace")  # no tag has it
    types("tag cvpr --delete --cache CACHE")
    types(f"{EXTRACT} --replace")
