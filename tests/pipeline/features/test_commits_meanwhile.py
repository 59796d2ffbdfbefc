"""Another process commits a stream just before this one opens it."""

import cache
from pipeline.features.spec import StreamSpec
from pipeline.processes.settings import Resources
from pipeline.steps.extraction import extract, stream_extraction
from pipeline.steps.extraction.plan import plan_extraction
from tests.pipeline.features.made_pictures import SPLIT, convert_noise
from tests.pipeline.features.made_up import Colour


def test_rows_that_were_committed_meanwhile_stay_with_their_provenance(tmp_path, monkeypatch):
    root = convert_noise(tmp_path, 8)
    load_provenance = stream_extraction.CommittedStream._load_provenance
    committed, loaded = [], []

    def run():
        plan = plan_extraction(root, SPLIT, StreamSpec("colour", Colour()))
        return extract.extract_together([plan], Resources(batch_size=4, workers=1))

    def report(*_):
        if not committed:
            committed.append("the inner run reports, too")
            run()
            committed[:] = [cache.open(root)[SPLIT].open_stream("colour").manifest]

    monkeypatch.setattr(stream_extraction, "report_other_work", report)
    monkeypatch.setattr(
        stream_extraction.CommittedStream,
        "_load_provenance",
        lambda stream: loaded.append(stream) or load_provenance(stream),
    )
    run()
    assert [cache.open(root)[SPLIT].open_stream("colour").manifest] == committed
    assert loaded == []  # the network is not loaded only to tell its provenance
