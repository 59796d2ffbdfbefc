"""A cache of another format is refused with one message, and left as it is."""

import json

import pytest

import cache
from tests.cache import toy
from tests.cache.toy import SPLIT
from tests.raising import cache_refuses

REFUSED = (
    r"manifest.json: expected format 'vibe-cache 3', found format .* Another version made it: "
    r"convert and extract again, into another cache. Commit 3e733d41 is the last one that reads "
    "'vibe-cache 2'"
)


@pytest.mark.parametrize("version", ["vibe-cache 2", "vibe-cache 4"])
@pytest.mark.parametrize("home", [SPLIT, f"{SPLIT}/features/resnet50"])
def test_a_manifest_of_another_format_is_refused(home, version, tmp_path):
    root = tmp_path / "cache"
    toy.write(root, toy.videos()[:4])
    toy.write_stream(root)
    file = root / home / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "format": version}))
    before = toy.tree(root)

    with cache_refuses(REFUSED):
        toy.opened(root).open_stream("resnet50")
    with cache_refuses(REFUSED):
        toy.write(root, toy.videos(), plan="second")
        toy.write_stream(root)
    with cache_refuses(REFUSED):
        cache.copy_split(root, SPLIT, tmp_path / "copy")
    report = cache.verify(root)
    assert "Another version made it" in " ".join(report.problems)
    assert "Another version made it" in " ".join(cache.repair(root, report).refused)
    assert "Another version made it" in " ".join(cache.gc(root).problems)
    if home == SPLIT:
        assert toy.tree(root) == before
