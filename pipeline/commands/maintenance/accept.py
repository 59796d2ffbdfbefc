"""A user decides that what differs of a stream does not matter: recorded in its manifest.  tracks -> [features]

The committed features stay as they are and count as made with what is there now, as another file of the same weights.
What changes their meaning cannot be accepted: another network, untrained weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import cache
from cache import fingerprint
from pipeline.conversion.identity import Difference, accepted, accepted_entry, differing
from pipeline.errors import PipelineError
from pipeline.features.plan import recorded_identity
from pipeline.features.spec import StreamSpec


def acceptable(split: cache.Split, spec: StreamSpec) -> list[Difference]:
    """What differs between the committed stream and `spec`.

    Raises PipelineError where there is no such stream, and for another network or untrained weights: features of two
    networks have nothing in common.
    """
    before = recorded_identity(split, spec.name)
    if before.get("kind") == "imported":
        raise PipelineError(f"{split.name}: stream {spec.name!r} was imported: name another stream, or --replace it.")
    untrained = spec.stream.stand_in or bool(split.stream_manifest(spec.name)["backbone"].get("stand_in"))
    differences = differing(before, spec.identity(split))
    for difference in differences:
        if difference.part == "kind" or (untrained and difference.part.partition(".")[0] == "weights"):
            raise PipelineError(
                f"{split.name}: stream {spec.name!r}: {difference}: that is another network, whose features mean "
                "something else. Extract them into a stream of another name, or --replace this one."
            )
    return differences


def accept(split: cache.Split, spec: StreamSpec, differences: Sequence[Difference], because: str) -> None:
    """Commit the stream with its new identity and a record of each difference. What a killed run finished is kept.

    Raises PipelineError without a reason, where nothing differs, and when there has been a commit since `split` was
    opened.
    """
    if not differences:
        raise PipelineError(f"{split.name}: nothing of the stream {spec.name!r} differs that could be accepted")
    if not (because := " ".join(because.split())):
        raise PipelineError("why does the difference not matter? --because TEXT")
    manifest = split.stream_manifest(spec.name)
    plan = fingerprint(dict(manifest["identity"]))  # that of a killed run: its journal is taken over
    form = {"dim": manifest["dim"], "dtype": manifest["dtype"]}
    with cache.StreamWriter(split.root, split.name, spec.name, **form, plan=plan) as writer:
        now = cache.open(split.root)[split.name].stream_manifest(spec.name)
        if now["digest"] != manifest["digest"]:
            raise PipelineError(f"{split.name}: another run has committed in the meantime: look again with `plan`")
        new = [{**difference.as_dict(), "because": because} for difference in differences]
        records = accepted_entry([*accepted(manifest), *new])
        writer.commit({**writer.entries, "identity": spec.identity(split), **records})
