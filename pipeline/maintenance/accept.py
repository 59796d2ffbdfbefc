"""A user decides that a difference does not matter, and why: recorded in the manifest.  raw -> [tracks -> features]

The committed rows stay as they are and count as made from what is there now: for a split, by this reader from these raw
files; for a stream, with these weights. What changes the meaning of rows cannot be accepted: demo data for real data,
other columns, pictures of another size, another network. Videos that are new, gone or rejected are left to the
conversion: without its raw files, a video's rows could never be made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import cache
from cache import fingerprint
from pipeline.cli.text import count
from pipeline.conversion.convert import is_failure
from pipeline.conversion.identity import Difference, accepted, accepted_entry, differing, short
from pipeline.conversion.plan import ConversionPlan, compare
from pipeline.errors import PipelineError
from pipeline.features.plan import recorded_identity
from pipeline.features.spec import StreamSpec
from pipeline.pixels import sources
from pipeline.raw import changes
from pipeline.settings.targets import Target

WRITING: Final = ".writing"  # docs/cache-format.md: the journal of a killed run is in this folder
MOST_NAMES: Final = 1000  # of videos, that a record holds

Pair = tuple[str, str]  # a video's fingerprint and pixels


@dataclass(frozen=True, slots=True)
class Proposal:
    """What differs of a split or of one of its streams and can be accepted. Nothing is written yet."""

    committed: cache.Split
    differences: tuple[Difference, ...]
    plan: ConversionPlan | None = None  # of a split
    videos: Mapping[str, tuple[Pair, Pair]] = field(default_factory=dict)  # name -> as committed, as they are now
    spec: StreamSpec | None = None  # of a stream

    @property
    def touched(self) -> tuple[str, ...]:
        """Videos with new file times and the same content: the times are recorded, without a reason."""
        return () if self.plan is None else self.plan.touched

    @property
    def empty(self) -> bool:
        return not self.differences and not self.videos

    def lines(self) -> Iterator[str]:
        """The differences as text, one a line."""
        where = self.committed.name + (f", stream {self.spec.name}" if self.spec is not None else "")
        yield from (f"{where}: {difference}" for difference in self.differences)
        for name, (was, now) in self.videos.items():
            pictures = "" if was[1] == now[1] else f", pictures were {short(was[1])}, are {short(now[1])}"
            yield f"{where}: video {name}: raw files were {short(was[0])}, are {short(now[0])}{pictures}"
        if self.touched:
            yield f"{where}: {count(len(self.touched), 'video')} with new file times and the same content"

    def records(self, because: str) -> list[dict[str, Any]]:
        """The new records of the manifest: one for each difference, and one for all videos."""
        records = [{**difference.as_dict(), "because": because} for difference in self.differences]
        if self.videos:
            was, now = (fingerprint({name: pair[i] for name, pair in self.videos.items()}) for i in (0, 1))
            names = list(self.videos)[:MOST_NAMES]
            part = {"part": "videos", "n_videos": len(self.videos), "names": names, "was": was, "is": now}
            records.append({**part, "because": because})
        return records


def propose(committed: cache.Split | None, target: Target) -> Proposal:
    """What can be accepted of a split: differences of its reader, and changed videos.

    Raises PipelineError where the split is not converted, and for what cannot be accepted.
    """
    if committed is None:
        raise PipelineError(f"{target.root}: {target.name} is not converted yet: there is nothing to accept")
    where: dict[str, Any] = {"raw": target.raw, "root": target.root, "body": target.body}
    plan = compare(committed, target.dataset, target.split, **where, any_reader=True)
    failed = {account.name for account in plan.accounts() if is_failure(plan.dataset, account)}
    names = set(plan.changed) - failed
    changed = {video.name: video for video in plan.append if video.name in names}
    videos = {}
    for number, name in enumerate(committed.videos.names):
        if name in changed:
            entry = committed.videos[number]
            now = (changes.video_digest(plan.raw, changed[name]), _pixels(plan, entry))
            videos[name] = ((entry.fingerprint, entry.pixels), now)
    return Proposal(committed, plan.differs, plan, videos)


def propose_for_stream(committed: cache.Split | None, target: Target) -> Proposal:
    """What can be accepted of the target's stream: differences of its identity.

    Raises PipelineError where there is no such stream, and for another network or untrained weights: features of two
    networks have nothing in common.
    """
    spec = target.stream
    if committed is None or spec is None:
        raise PipelineError(f"{target.name}: name the weights that the stream counts as made with: --weights")
    before = recorded_identity(committed, spec.name)
    if before.get("kind") == "imported":
        raise PipelineError(f"{target.name}: stream {spec.name!r} was imported: name another stream, or --replace it.")
    untrained = spec.stream.stand_in or bool(committed.stream_manifest(spec.name)["backbone"].get("stand_in"))
    differences = differing(before, spec.identity(committed))
    for difference in differences:
        if difference.part == "kind" or (untrained and difference.part.partition(".")[0] == "weights"):
            raise PipelineError(
                f"{target.name}: stream {spec.name!r}: {difference}: that is another network, whose features mean "
                "something else. Extract them into a stream of another name, or --replace this one."
            )
    return Proposal(committed, tuple(differences), spec=spec)


def accept(what: Proposal, because: str) -> list[dict[str, Any]]:
    """Commit it, without a new row; returns all records that the manifest has now.

    Raises PipelineError without a reason, where there is nothing to accept, when there has been a commit since it was
    proposed, and where a killed conversion left shards that would be lost.
    """
    because = " ".join(because.split())
    if not because:
        raise PipelineError("why does the difference not matter? --because TEXT")
    if what.empty and not what.touched:
        left = f"; {what.plan.why}: convert" if what.plan is not None and what.plan.why else ""
        raise PipelineError(f"{what.committed.name}: nothing differs that could be accepted{left}")
    new = what.records(because)
    if what.plan is not None:
        return _accept_split(what, what.plan, new)
    assert what.spec is not None
    return _accept_stream(what.committed, what.spec, new)


def _accept_split(what: Proposal, plan: ConversionPlan, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    split = what.committed
    unfinished = cache.store_at(plan.root).list_names(f"{plan.name}/{WRITING}")
    if any(name.startswith("journal") for name in unfinished) and not what.empty:
        raise PipelineError(
            f"{plan.name}: a killed conversion has finished shards that would be lost. Convert first and accept then; "
            "or, to lose them, `gc --unfinished`."
        )
    now = {name: pair for name, (_, pair) in what.videos.items()}
    digests = plan.digests() | {name: digest for name, (digest, _) in now.items()}
    stamps = {name: (plan.stamps[name], digests[name]) for name in (*what.touched, *now)}
    identity = fingerprint({"accept": new, "base": split.manifest["digest"]})
    with cache.SplitWriter(
        plan.root, plan.name, columns=split.columns, plan=identity, provenance=plan.provenance
    ) as writer:
        _refuse_stale(plan.name, writer.digest, split.manifest)
        if not what.empty:
            writer.begin(refingerprint=now)
        changes.write_stamps(plan.root, plan.name, {**plan.seen, **stamps})
        if what.empty:
            return []
        records = accepted(split.manifest) + new
        writer.commit({**writer.entries, "reader": dict(plan.reader), **accepted_entry(records)})
    return records


def _accept_stream(split: cache.Split, spec: StreamSpec, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Commit the stream with its new identity. Shards that a killed run finished with the old one are kept."""
    manifest = split.stream_manifest(spec.name)
    records = accepted(manifest) + new
    plan = fingerprint(dict(manifest["identity"]))  # that of a killed run: its journal is taken over
    form = {"dim": manifest["dim"], "dtype": manifest["dtype"]}
    with cache.StreamWriter(split.root, split.name, spec.name, **form, plan=plan) as writer:
        now = cache.open(split.root)[split.name].stream_manifest(spec.name)
        _refuse_stale(split.name, now["digest"], manifest)
        writer.commit({**writer.entries, "identity": spec.identity(split), **accepted_entry(records)})
    return records


def _pixels(plan: ConversionPlan, entry: cache.VideoEntry) -> str:
    """The digest of a video's pictures as they are now. Raises PipelineError where they do not fit its rows."""
    if not entry.source:
        return entry.pixels
    source = sources.parse(plan.raw, entry.source)
    if not source.place.exists():
        raise PipelineError(f"{entry.name}: {source.place} is not there: put its pictures back, or convert again")
    if (size := tuple(source.size())) != (entry.width, entry.height):
        was, now = (f"{width} x {height}" for width, height in ((entry.width, entry.height), size))
        raise PipelineError(
            f"{entry.name}: {source.place} has pictures of {now}, and its boxes were made for {was}: convert it again"
        )
    return source.digest()


def _refuse_stale(name: str, digest: str, seen: Mapping[str, Any]) -> None:
    if digest != seen["digest"]:
        raise PipelineError(f"{name}: another run has committed in the meantime: look again with `plan`")
