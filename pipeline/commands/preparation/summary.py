"""What `prepare` prints at its end: the cache's contents, and the next commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cache
from pipeline.cli.console import DOUBT, STAND_IN, VERB, out, plain
from pipeline.cli.text import FEW, command, few, from_here
from pipeline.conversion.committed import rejected_videos
from pipeline.conversion.plan import committed_split
from pipeline.features.plan import stream_label
from pipeline.recipe.recipe import SplitPlan
from pipeline.recipe.steps import accounting_lines


def split_now(plan: SplitPlan) -> cache.Split | None:
    """The split as it is in the cache now; None if it was not converted."""
    if plan.up_to_date:
        return plan.committed
    return committed_split(plan.recipe.root, plan.name)


@dataclass(frozen=True, slots=True)
class Summary:
    """What `prepare` prints at its end."""

    root: cache.Root
    pages: Mapping[str, Path]  # split -> its page
    printed: Sequence[str]  # messages about clips that were printed, and are not repeated

    def print(self, plans: Sequence[SplitPlan]) -> int:
        """Print the summary. Returns the number of rejected videos."""
        n_rejected = 0
        with_inputs = list[str]()  # splits that a model can be run on
        for plan in plans:
            split = split_now(plan)
            if split is None:
                continue
            n_rejected += self._print_split(plan, split)
            if split.manifest["rows"] and _has_inputs(plan, split):
                with_inputs.append(plan.name)
        out.print(f"{'videos':<{VERB}} {plain(self._status())}")
        if with_inputs:
            options = ["--cache", str(self.root), "--checkpoint", "FILE", "--body", "DIR"]
            bodies = command("predict", with_inputs[0], *options, module="tasks")
            out.print(f"{'bodies':<{VERB}} {plain(bodies)}")
        return n_rejected

    def _print_split(self, plan: SplitPlan, split: cache.Split) -> int:
        from pipeline.show.page import shows

        title = f"[bold]{plain(plan.name)}[/bold]"
        if split.manifest["stand_in"]:
            title += f"  {STAND_IN}"
        out.print(title)
        for text in accounting_lines(split.manifest["accounting"]):
            out.print(f"  {plain(text)}")
        streams = [stream_label(split, stream) for stream in split.streams]
        out.print(f"  features {plain(', '.join(streams)) or 'none'}")
        page = self.pages[plan.name]
        if shows(page, split.manifest["digest"]):
            out.print(f"  page {plain(from_here(page))}")
        n_rejected, messages = rejected_videos(split)
        rejected = [self._rejection(text, plan.recipe.raw) for text in messages]
        for text in few(rejected, FEW, self._status()):
            out.print(f"  {DOUBT} {plain(text)}")
        return n_rejected

    def _rejection(self, rejection: str, raw: Path) -> str:
        """Shorten a line of `rejected_videos` if a message about the same clip was printed."""
        name, reason, *_ = rejection.split(": ")
        if any(text.startswith(f"{raw / name}: ") for text in self.printed):
            return f"rejected {name}: {reason} (see above)"
        return f"rejected {rejection}"

    def _status(self) -> str:
        return command("status", "--all", "--cache", str(self.root))


def _has_inputs(plan: SplitPlan, split: cache.Split) -> bool:
    """Whether the split has a stream of the recipe that a model can read."""
    for spec in plan.recipe.streams:
        if spec.stream.is_model_input and spec.name in split.streams:
            return True
    return False
