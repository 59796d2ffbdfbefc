"""`python -m pipeline extract`: tracks -> feature streams, for one split.

`RequestedStreams` are the streams to compute, with their kinds and options, also for `prepare`.
`--stream` names [features] streams; `--kind`, `--weights` and `--precision` name keys of the first
stream's section. An existing stream must have been extracted with the same options.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cache
from pipeline.cli.command_line import Command
from pipeline.cli.console import err, out
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.commands.convert import describe_progress, record
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.committed import advise_continuing
from pipeline.features.spec import StreamSpec
from pipeline.settings.arguments import part_text
from pipeline.settings.file import SettingsFile
from pipeline.settings.sections import Settings, kind_of, stream_of
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.extraction.plan import Why, plan_extraction
from pipeline.steps.run_state import SETTING


@dataclass(frozen=True, slots=True)
class RequestedStreams:
    """The streams that a command names, and the settings that define them."""

    source: SettingsFile
    names: tuple[str, ...]

    @classmethod
    def by_options(
        cls,
        settings: Settings,
        *,
        weights: str | None,
        kind: str | None = None,
        precision: str | None = None,
    ) -> RequestedStreams:
        """The streams of [features], or the one that `kind` names. The other options, if they are
        given, are keys of the first stream's section.
        """
        is_named = "streams" in settings.source.section("features").options
        names = settings.stream_names if kind is None or is_named else (kind,)
        source = settings.source.override_keys(
            names[0], kind=kind, weights=weights, precision=precision
        )
        return cls(source, names)

    @property
    def sections(self) -> list[str]:
        """The sections that define them: [features], and those of the streams and their kinds."""
        kinds = [kind_of(self.source, name) for name in self.names]
        return list(dict.fromkeys(["features", *self.names, *kinds]))

    def specs(self, committed: cache.Split | None) -> list[StreamSpec]:
        """The streams to extract of a split; committed: None if it is not converted yet.

        Raises PipelineError for an existing stream whose kind neither a setting nor its name says.
        """
        specs = []
        for name in self.names:
            is_unknown = not streams.is_known(kind_of(self.source, name))
            if is_unknown and committed is not None and name in committed.streams:
                advice = advise_continuing(committed, name)
                raise PipelineError(
                    f"{committed.name}: no setting names the kind of stream {name!r}. {advice}"
                )
            specs.append(stream_of(self.source, name))
        return specs

    def list_without_weights(
        self, specs: Sequence[StreamSpec], existing: Collection[str]
    ) -> list[StreamSpec]:
        """The streams with random weights that no option of the command names, but for existing
        ones.
        """
        unweighted = []
        for spec in specs:
            sections = (self.source.section(spec.name), self.source.section(spec.stream.kind))
            has_named_weights = any("weights" in section.options for section in sections)
            if spec.stream.stand_in and spec.name not in existing and not has_named_weights:
                unweighted.append(spec)
        return unweighted

    def refuse_random_weights(self, specs: Sequence[StreamSpec], split: str) -> None:
        """Raise ConfigError for the first of these streams, if any; its split has real data."""
        for spec in specs:
            spec.refuse_random_weights(split, self.source.where(spec.name, "weights"))


def _run(args: argparse.Namespace) -> int:
    """Extract the streams of one split.

    Returns 1 if the split has no rows or lacks columns that a stream reads, if videos are missing,
    or if a decoder crashed.
    """
    name = f"{args.dataset}/{args.split}"
    committed = cache.open(args.cache)[name]
    record = ConversionRecord(committed)
    empty = record.why_empty()
    for problem in empty:
        out.show_problem(problem)
    if empty:
        return 1

    requested = _parse_streams(args)
    all_specs = [replace(spec, raw=args.raw) for spec in requested.specs(committed)]
    if not record.is_stand_in:
        existing = () if args.replace else committed.streams
        new = requested.list_without_weights(all_specs, existing)
        requested.refuse_random_weights(new, name)
    specs = []
    for spec in all_specs:
        refusal = spec.missing_columns(committed)
        if refusal:
            out.show_problem(refusal)
        else:
            specs.append(spec)
    works = [plan_extraction(args.cache, name, spec, replace=args.replace) for spec in specs]
    for work in works:
        if work.why == Why.REPLACE and work.missing is not None:
            err.warn(
                f"{name}: {work.spec.name} is deleted before its {count(work.missing.rows, 'row')} "
                "are computed again. If this command ends early, it has fewer rows, or none, until "
                "the next one."
            )
    with bar(f"extract {name}{part_text(args.part)}", err, unit="row") as progress:
        from pipeline.steps.extraction.extract import run_extraction  # imports torch

        report = run_extraction(works, args.cfg, progress, args.part)
    return report.print("extract", name) or int(len(specs) < len(all_specs))


def _reads(args: argparse.Namespace) -> list[str]:
    return [*_parse_streams(args).sections, SETTING]


def _parse_streams(args: argparse.Namespace) -> RequestedStreams:
    return RequestedStreams.by_options(
        args.cfg, kind=args.kind, weights=args.weights, precision=args.precision
    )


COMMAND: Final = Command(_run, _reads, describe_progress, record)
