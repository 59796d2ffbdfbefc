"""A person says that a difference does not matter: recorded, not hidden.  raw -> [tracks -> features] -> windows

The committed rows stay as they are and count as made by what is there now. What differed, and why that does not matter,
stays in the manifest (`pipeline.conversion.accepted`). What decides whether rows mean what they say cannot be accepted:
stand-ins for real data, other columns, pictures of another size, another network, and videos that are new or gone. A
video that is gone could never be made again, by another reader or for another stream, so its rows go with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cache
from cache import fingerprint
from pipeline.cli.text import count
from pipeline.conversion import accepted
from pipeline.conversion.accepted import Record
from pipeline.conversion.differences import Difference, differing, replaced
from pipeline.conversion.plan import ConversionPlan, committed_split, compare_raw
from pipeline.conversion.retry import failed_videos
from pipeline.errors import PipelineError
from pipeline.features.extract import recorded_identity
from pipeline.pixels import sources
from pipeline.raw import changes
from pipeline.settings.targets import Wanted

ONE_BY_ONE: Final = 1000  # videos that a manifest names; of more, one record speaks of all
WRITING: Final = ".writing"  # docs/cache-format.md: the journal of a run that was killed lies there

Pair = tuple[str, str]  # a video's fingerprint and pixels


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What is to be accepted of a split or of one of its streams, as `propose` found it. Nothing is written yet."""

    wanted: Wanted
    stream: str | None
    digest: str  # of the manifest that it is about
    parts: tuple[Difference, ...]
    videos: Mapping[str, tuple[Pair, Pair]]  # name -> what was committed, what is there now
    plan: ConversionPlan | None  # of a split
    touched: tuple[str, ...] = ()  # videos of other times and the same content: remembered, not recorded

    @property
    def nothing(self) -> bool:
        return not self.parts and not self.videos

    def records(self, because: str) -> list[Record]:
        """What the manifest will say, in the order of its parts."""
        told: list[Record] = [{**difference.as_dict(), "because": because} for difference in self.parts]
        if len(self.videos) > ONE_BY_ONE:
            was, now = (fingerprint({name: pair[i] for name, pair in self.videos.items()}) for i in (0, 1))
            n_videos = len(self.videos)
            return [*told, {"part": accepted.VIDEOS, "n_videos": n_videos, "was": was, "is": now, "because": because}]
        return told + [
            {"part": f"{kind}{name}", "was": was[i], "is": now[i], "because": because}
            for name, (was, now) in self.videos.items()
            for i, kind in enumerate((accepted.VIDEO, accepted.PIXELS))
            if was[i] != now[i]
        ]


def propose(wanted: Wanted, parts: Sequence[str] = (), videos: Sequence[str] = ()) -> Acceptance:
    """What can be accepted of a split: differing parts of its reader, and changed videos.

    `parts`, `videos`: only these; neither: all there is. Raises PipelineError where the split is not converted, for
    names of what does not differ, and for what cannot be accepted.
    """
    committed = committed_split(wanted.root, wanted.name)
    if committed is None:
        raise PipelineError(f"{wanted.root}: {wanted.name} is not converted yet: there is nothing to accept")
    plan = _compared_by_video(wanted, committed)
    found = differing(committed.manifest["reader"], plan.reader)
    for difference in found:
        if difference.part == "stand_in":
            raise PipelineError(
                f"{wanted.name}: a stand-in cannot count as real data, nor the other way round: name another cache"
            )
    every = not parts and not videos
    chosen = found if every else _chosen(wanted.name, found, parts)
    _refuse_other_videos(plan, videos)
    changed = plan.changed if every else [name for name in plan.changed if name in set(videos)]
    failed = failed_videos(wanted.dataset, committed)  # accepted, one that has been mended would never be read
    if mended := [name for name in videos if name in failed]:
        raise PipelineError(
            f"{plan.name}: {mended[0]} was set aside: there are no rows to keep. Convert: that reads it."
        )
    changed = [name for name in changed if name not in failed]
    pairs = dict(_pairs(plan, committed, changed))
    return Acceptance(wanted, None, committed.manifest["digest"], tuple(chosen), pairs, plan, plan.touched)


def propose_for_stream(wanted: Wanted, parts: Sequence[str] = ()) -> Acceptance:
    """What can be accepted of the stream that is wanted: parts of its identity.

    Raises PipelineError where there is no such stream, and for another network or a stand-in's weights: features of two
    networks have nothing to do with each other.
    """
    spec = wanted.stream
    if spec is None:
        raise PipelineError(f"{wanted.name}: say which weights the stream counts as made with: --weights")
    committed = cache.open(wanted.root)[wanted.name]
    before = recorded_identity(committed, spec.name)
    if before.get("kind") == "imported":
        raise PipelineError(f"{wanted.name}: stream {spec.name!r} was imported: name another stream, or --replace it.")
    found = differing(before, spec.identity(committed))
    was_stand_in = bool(committed.stream_manifest(spec.name)["backbone"].get("stand_in"))
    where = f"{wanted.name}: stream {spec.name!r}"
    for difference in found:
        of_stand_ins = was_stand_in or spec.stream.stand_in
        if difference.part == "kind" or (of_stand_ins and _is_of_part(difference, "weights")):
            raise PipelineError(
                f"{where}: {difference}: that is another network, whose features mean something else. Extract them "
                "into a stream of another name, or --replace this one."
            )
    whole = [part.partition(".")[0] for part in parts]  # half of what says which weights these are says nothing
    chosen = _chosen(where, found, whole) if parts else found
    return Acceptance(wanted, spec.name, committed.stream_manifest(spec.name)["digest"], tuple(chosen), {}, None)


def accept(what: Acceptance, because: str, *, discard_unfinished: bool = False) -> list[Record]:
    """Commit it, without a new row; returns what the manifest says now.

    Raises PipelineError without a reason, where there is nothing to accept, when there has been a commit since it was
    proposed, and where a killed conversion left shards that this commit would cost, unless `discard_unfinished`.
    """
    because = " ".join(because.split())
    if not because:
        raise PipelineError("say why the difference does not matter: --because TEXT")
    if what.nothing and not what.touched:
        left = f"; {what.plan.why}: that is to be converted" if what.plan is not None and what.plan.why else ""
        raise PipelineError(f"{what.wanted.name}: nothing differs that could be accepted{left}")
    return _accept_split(what, because, discard_unfinished) if what.stream is None else _accept_stream(what, because)


def _accept_split(what: Acceptance, because: str, discard_unfinished: bool) -> list[Record]:
    wanted, plan = what.wanted, what.plan
    assert plan is not None
    left = cache.store_at(wanted.root).list_names(f"{wanted.name}/{WRITING}")
    killed = any(name.startswith("journal") for name in left)
    if killed and not what.nothing and not discard_unfinished:
        raise PipelineError(
            f"{wanted.name}: a conversion was killed and has finished shards to go on from, which this commit would "
            "cost. Convert first and accept then; or, if nothing of it is wanted, --discard-unfinished."
        )
    split = cache.open(wanted.root)[wanted.name]
    told = [*accepted.records(split.manifest), *what.records(because)]
    reader = replaced(split.manifest["reader"], plan.reader, [difference.part for difference in what.parts])
    provenance = {"raw": str(wanted.raw.resolve())}
    if wanted.body is not None and reader["body"] and reader["body"] == plan.reader["body"]:
        provenance["body"] = str(wanted.body.resolve())
    elif "body" in split.provenance:
        provenance["body"] = split.provenance["body"]
    identity = fingerprint({"accept": what.records(because), "base": what.digest})
    with cache.SplitWriter(
        wanted.root, wanted.name, columns=split.columns, plan=identity, provenance=provenance
    ) as writer:
        _refuse_later_commit(what)
        if what.videos:
            writer.begin(refingerprint={name: now for name, (_, now) in what.videos.items()})
        elif what.parts:
            writer.begin()
        changes.write_stamps(wanted.root, wanted.name, _stamps(what, plan, split))
        if what.nothing:
            return []
        writer.commit({**writer.entries, "reader": reader, **accepted.entry(told)})
    return told


def _accept_stream(what: Acceptance, because: str) -> list[Record]:
    """The stream with its new identity. Shards that a killed run finished with the old one count too."""
    wanted, spec = what.wanted, what.wanted.stream
    assert spec is not None
    manifest = cache.open(wanted.root)[wanted.name].stream_manifest(spec.name)
    told = [*accepted.records(manifest), *what.records(because)]
    before = manifest["identity"]
    with cache.StreamWriter(
        wanted.root,
        wanted.name,
        spec.name,
        dim=manifest["dim"],
        dtype=manifest["dtype"],
        plan=fingerprint(dict(before)),  # the plan of the run that was killed: its journal is taken over
    ) as writer:
        _refuse_later_commit(what)
        identity = replaced(before, spec.identity(), [difference.part for difference in what.parts])
        writer.commit({**writer.entries, "identity": identity, **accepted.entry(told)})
    return told


def _compared_by_video(wanted: Wanted, committed: cache.Split) -> ConversionPlan:
    """The plan of who takes the reader as unchanged."""
    return compare_raw(
        wanted.dataset,
        wanted.split,
        raw=wanted.raw,
        root=wanted.root,
        body=wanted.body,
        committed=committed,
        any_reader=True,
    )


def _chosen(where: str, found: Sequence[Difference], parts: Sequence[str]) -> list[Difference]:
    for part in parts:
        if not any(_is_of_part(difference, part) for difference in found):
            differ = ", ".join(difference.part for difference in found) or "nothing"
            raise PipelineError(f"{where}: {part!r} does not differ; what does: {differ}")
    return [difference for difference in found if any(_is_of_part(difference, part) for part in parts)]


def _is_of_part(difference: Difference, part: str) -> bool:
    return difference.part == part or difference.part.startswith(f"{part}.")


def _refuse_other_videos(plan: ConversionPlan, videos: Collection[str]) -> None:
    changed, new, removed = set(plan.changed), set(plan.new), set(plan.removed)
    for name in videos:
        if name in new:
            raise PipelineError(f"{plan.name}: {name} is new: it must be converted, there is nothing of it to accept")
        if name in removed:
            raise PipelineError(
                f"{plan.name}: {name} is gone from {plan.raw}: without its raw files its rows could never be made "
                "again, so they cannot be kept. Put them back, or convert: that drops it."
            )
        if name not in changed:
            raise PipelineError(f"{plan.name}: {name} has not changed; {count(len(changed), 'video')} of it did")


def _pairs(
    plan: ConversionPlan, committed: cache.Split, names: Collection[str]
) -> Iterator[tuple[str, tuple[Pair, Pair]]]:
    """What was committed of each video, and what is there now. Raises PipelineError for pictures that do not fit."""
    wanted = set(names)
    videos = {video.name: video for video in plan.append if video.name in wanted}
    for number, name in enumerate(committed.videos.names):
        if name in videos:
            entry = committed.videos[number]
            now = (changes.video_digest(plan.raw, videos[name]), _pixels(plan.raw, entry))
            yield name, ((entry.fingerprint, entry.pixels), now)


def _pixels(raw: Path, entry: cache.VideoEntry) -> str:
    if not entry.source:
        return entry.pixels
    source = sources.parse(raw, entry.source)
    if not source.place.exists():
        raise PipelineError(f"{entry.name}: {source.place} is not there: put its pictures back, or convert again")
    if (size := tuple(source.size())) != (entry.width, entry.height):
        was, now = (f"{width} x {height}" for width, height in ((entry.width, entry.height), size))
        raise PipelineError(
            f"{entry.name}: {source.place} has pictures of {now}, and its boxes were made for {was}: convert it again"
        )
    return source.digest()


def _stamps(what: Acceptance, plan: ConversionPlan, split: cache.Split) -> dict[str, changes.Seen]:
    """stamps.json as it was, with the accepted and the touched videos as they look now."""
    known = dict(zip(split.videos.names, split.videos.fingerprints, strict=True))
    seen = changes.read_stamps(what.wanted.root, what.wanted.name)
    seen |= {name: (plan.stamps[name], known[name]) for name in what.touched}
    return seen | {name: (plan.stamps[name], now[0]) for name, (_, now) in what.videos.items()}


def _refuse_later_commit(what: Acceptance) -> None:
    split = cache.open(what.wanted.root)[what.wanted.name]
    now = split.manifest if what.stream is None else split.stream_manifest(what.stream)
    if now["digest"] != what.digest:
        raise PipelineError(f"{what.wanted.name}: there has been a commit in the meantime: look again with `plan`")
