"""Splits of the demo data, with features, to be exported."""

import pytest

from pipeline import datasets
from tests.pipeline.extras.exchange.made_streams import add_features, add_tokens


@pytest.fixture(scope="session")
def exportable(embedded, into, tmp_path_factory):
    """exportable(split): the root of a cache that has it, with two streams. Only to be read."""
    root = tmp_path_factory.mktemp("exported") / "cache"

    def make(name):
        if not (root / name / "manifest.json").exists():
            dataset, _, split = name.partition("/")
            reader = datasets.get(dataset)
            body = embedded.body if reader.labels.uses_body else None
            into.convert(root, embedded.raw(dataset), dataset, split, body=body)
            if "bbox" in reader.columns(split, body=False):
                add_features(root, name)
                add_tokens(root, name)
        return root

    return make
