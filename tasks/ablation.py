"""training -> evaluation -> the ablation table, as a Luigi task: `luigi --module tasks Ablation --seeds 0,1,2`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import luigi

from pipeline.errors import ConfigError
from tasks import ablation_table as of_runs
from tasks import terminal
from tasks.ablation_table import AS_CONFIGURED
from tasks.base import PipelineTask
from tasks.data import Data
from tasks.settings import settings, which_runs
from tasks.training import TrainVIBE, read_metrics, train_config
from vibe_model import runs
from vibe_model.settings.config import TrainConfig
from vibe_model.settings.variants import PER_FRAME, VARIANTS

FILES: Final = ("ablation.csv", "ablation.json", "ablation.md")  # in [paths] runs
WITHOUT_3DPW: Final = "without-3dpw"
_3DPW: Final = "3dpw/train"


class Ablation(PipelineTask):
    """Train every variant of the paper's ablation, once a seed, and write the table: ablation.csv, .json and .md.

    They lie in [paths] runs, and are those of the last call. Variants that the configured datasets cannot be trained
    for are left out, unless they are named; see `left_out`.
    """

    verb = "ablate"
    variants = luigi.Parameter(
        default="", description="of vibe_model.settings.variants, or configured; empty: all that fit"
    )
    seeds = luigi.Parameter(default="", description="such as 0,1,2; empty: the configuration's own")

    @property
    def what(self) -> str:
        return f"{terminal.count(len(self._variants()), 'variant')}, {terminal.count(len(self._seeds()), 'seed')}"

    def requires(self) -> list[luigi.Task]:
        if which_runs(settings()).variant:
            raise ConfigError(
                f"{settings().source.where('train', 'variant')}: Ablation trains the variants itself; leave it out"
            )
        wanted = [(variant, seed) for variant in self._variants() for seed in self._seeds()]
        for variant, seed in wanted:
            _config(variant, seed)  # a mistake is told before anything runs
        return [Data(), *(TrainVIBE(variant=_parameter(variant), seed=seed) for variant, seed in wanted)]

    def up_to_date(self) -> bool:
        folder = settings().paths.runs
        return all((folder / name).is_file() and (folder / name).read_text() == t for name, t in self._texts().items())

    def work(self) -> None:
        for name, text in self._texts().items():
            _replace(settings().paths.runs / name, text)
        terminal.say(self.verb, self.what, ", ".join(FILES))
        self.tell()

    def tell(self) -> None:
        """The default protocol's rows on the terminal, and where to look."""
        found = self._runs()
        show(of_runs.table(found), stand_in=of_runs.is_stand_in(found), folder=settings().paths.runs)
        for name, why in self._left_out().items():
            terminal.warn(f"left out {name}: {why}")

    def _texts(self) -> dict[str, str]:
        """What the files have to hold, by name."""
        found, left = self._runs(), self._left_out()
        rows = of_runs.table(found)
        texts = (of_runs.as_csv(rows), of_runs.as_json(found, rows, left), of_runs.as_markdown(found, rows, left))
        return dict(zip(FILES, texts, strict=True))

    def _runs(self) -> dict[str, dict[str, of_runs.Metrics]]:
        """metrics.json of every run, by variant and folder."""
        folders = {v: [runs.run_folder(_config(v, seed)) for seed in self._seeds()] for v in self._variants()}
        return {variant: {folder.name: read_metrics(folder) for folder in of} for variant, of in folders.items()}

    def _variants(self) -> list[str]:
        if not self.variants:
            return default_variants()
        named = list(dict.fromkeys(word.strip() for word in str(self.variants).split(",")))
        if unknown := [name for name in named if name not in VARIANTS and name != AS_CONFIGURED]:
            known = ", ".join((*VARIANTS, AS_CONFIGURED))
            raise ConfigError(f"--variants: unknown {', '.join(map(repr, unknown))}; known: {known}")
        return named if PER_FRAME in named else [*named, PER_FRAME]

    def _left_out(self) -> dict[str, str]:
        return {} if self.variants else left_out(train_config())

    def _seeds(self) -> list[int]:
        words = [word.strip() for word in str(self.seeds).split(",")] if self.seeds else ["-1"]
        if self.seeds and not all(word.isdecimal() for word in words):
            raise ConfigError(f"--seeds {self.seeds}: expected whole numbers with commas between, such as 0,1,2")
        return list(dict.fromkeys(map(int, words)))


def _replace(path: Path, text: str) -> None:
    runs.replace_file(path, lambda stream: stream.write(text.encode()))


def _parameter(variant: str) -> str:
    """As TrainVIBE and train_config take it: "" changes nothing."""
    return "" if variant == AS_CONFIGURED else variant


def _config(variant: str, seed: int) -> TrainConfig:
    return train_config(_parameter(variant), None if seed < 0 else seed)


def default_variants() -> list[str]:
    """All that the configured datasets can be trained for, in the paper's order.

    Where one of them is `without-3dpw`, what it is to be compared with is there, too: the configuration itself, unless
    another variant is just that.
    """
    base = train_config()
    left = left_out(base)
    chosen = [name for name in VARIANTS if name not in left]
    if WITHOUT_3DPW in chosen and not any(_same(train_config(name), base) for name in chosen):
        chosen.insert(chosen.index(WITHOUT_3DPW), AS_CONFIGURED)
    return chosen


def left_out(base: TrainConfig) -> dict[str, str]:
    """The variants that cannot be trained, or would show nothing, with these datasets; and why."""
    left = {}
    for name, changes in VARIANTS.items():
        prior = changes.get("prior", base.prior)
        if prior != "none" and not set(base.motion) - set(base.leave_out):
            left[name] = "[train] motion names no real motion"
    if _3DPW not in base.training_splits:
        left[WITHOUT_3DPW] = f"{_3DPW} is not trained on"
    elif _3DPW in base.part("datasets_3d") and set(base.part("datasets_3d")) == {_3DPW}:
        left[WITHOUT_3DPW] = f"{_3DPW} is all the 3D data that there is"
    return left


def _same(config: TrainConfig, other: TrainConfig) -> bool:
    return replace(config, name=other.name) == other


def show(rows: list[of_runs.Row], *, stand_in: bool, folder: Path) -> None:
    """The default protocol's rows, and the files where the rest is."""
    for split in dict.fromkeys(row.split for row in rows):
        here = [row for row in rows if (row.split, row.protocol) == (split, "default")]
        terminal.console.print(f"\n{split}, {here[0].frames:,} frames")
        for line in of_runs.as_text(here):
            terminal.console.print(line)
    terminal.console.print(f"\n[dim]{of_runs.UNITS} {of_runs.spread_in_words(rows)}[/dim]\n")
    if stand_in:
        terminal.console.print(terminal.STAND_IN)
    files = ", ".join(str(terminal.shortened(folder / name)) for name in FILES)
    terminal.fact("numbers", f"{files} (both protocols)")
