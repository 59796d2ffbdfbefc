"""Every setting as it holds, and who said it: what `python -m pipeline config` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from pipeline import datasets
from pipeline.settings.file import LUIGI
from pipeline.settings.sections import TYPES, Features
from tasks import defaults
from tasks.settings import ELSEWHERE, OF_TRAIN, OF_TRAINING, UNLESS_SET, Settings, own_config, own_mposer, which_runs
from vibe_model.settings import config as of_training
from vibe_model.settings import mposer_config as of_mposer
from vibe_model.settings.variants import VARIANTS

DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key, its value in our types, and where that comes from."""

    section: str
    key: str
    value: Any
    origin: str  # default, luigi.cfg line 23, preset laptop, variant concat, ...
    line: int = 0  # of luigi.cfg; 0: it does not stand there

    @property
    def text(self) -> str:
        """As luigi.cfg would say it, but for what is empty there."""
        return in_words(self.value) or "(empty)"

    def as_dict(self) -> dict[str, Any]:
        """For a machine to read: the value as JSON knows it."""
        where = {"origin": self.origin, "line": self.line or None}
        return {"section": self.section, "key": self.key, "value": plain(self.value), **where}


def in_words(value: Any) -> str:
    """
    >>> in_words(True), in_words(None), in_words(("a/b", "c/d")), in_words({"a/b": 4})
    ('true', 'none', 'a/b c/d', 'a/b:4')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    if isinstance(value, Mapping):
        return " ".join(f"{name}:{one}" for name, one in value.items())
    return "none" if value is None else str(value)


def plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def effective(s: Settings) -> Iterator[Setting]:
    """Section by section, in the order of docs/settings.md. What the sections lack is there with its default."""
    for name, spec in TYPES.items():
        values = getattr(s, name)
        yield from (_said(s, name, field.name, getattr(values, field.name)) for field in fields(spec))
        if spec is Features:
            yield from _options_of_streams(s)
    shown = [name for name in datasets.names() if name in s.data.datasets or name in s.source.sections]
    broken = datasets.broken(shown)
    for name in shown:
        if name not in broken:  # its options cannot be told
            reader = s.dataset(name)
            yield from (_said(s, name, field.name, getattr(reader, field.name)) for field in fields(reader))
    yield from _of_train(s)
    yield from _of_mposer(s)
    yield from _of_luigi(s)


def _options_of_streams(s: Settings) -> Iterator[Setting]:
    for stream in {spec.stream.kind: spec.stream for spec in (s.stream, s.crops) if spec is not None}.values():
        own = [field.name for field in fields(stream) if field.name not in {f.name for f in fields(Features)}]
        yield from (_said(s, stream.kind, key, getattr(stream, key)) for key in own)


def _said(s: Settings, section: str, key: str, value: Any, otherwise: str = DEFAULT) -> Setting:
    """With the line that says it, the preset that does, or what else there is."""
    text = s.source.section(section).get(key)
    if text is None:
        return Setting(section, key, value, otherwise)
    return Setting(section, key, value, f"{s.file.name} line {text.line}", text.line)


def _of_train(s: Settings) -> Iterator[Setting]:
    runs, config = which_runs(s), own_config(s)
    yield from (_said(s, "train", key, getattr(runs, key)) for key in OF_TRAIN)
    changed = {key: part for part in (runs.variant or "").split("+") for key in VARIANTS.get(part, {})}
    start, usual = of_training.PRESETS[runs.preset](), of_training.TrainConfig()
    for field in fields(config):
        if field.name in ELSEWHERE:
            continue
        value = getattr(config, field.name)
        if field.name in changed:
            yield Setting("train", field.name, value, f"variant {changed[field.name]}")
        elif field.name == "name" and runs.variant:
            yield Setting("train", "name", value, _said(s, "train", "name", value).origin + f", variant {runs.variant}")
        else:
            otherwise = _unless_usual(field.name, start, usual, runs.preset)
            yield _said(s, "train", field.name, value, otherwise)


def _of_mposer(s: Settings) -> Iterator[Setting]:
    config, _ = own_mposer(s)
    fits = "embedded" if which_runs(s).preset == "embedded" else "amass"
    preset = s.mposer.get("preset", fits)
    fitting = "[train] preset" if "preset" in s.train else DEFAULT
    yield _said(s, "mposer", "preset", preset, fitting)
    start, usual, train = of_mposer.PRESETS[preset](), of_mposer.MPoserConfig(), own_config(s)
    for field in fields(config):
        if field.name in (*OF_TRAINING, "motion"):
            continue
        if field.name in UNLESS_SET and field.name not in s.mposer:
            yield Setting("mposer", field.name, getattr(train, field.name), f"[train] {field.name}")
        else:
            otherwise = _unless_usual(field.name, start, usual, preset)
            yield _said(s, "mposer", field.name, getattr(config, field.name), otherwise)


def _unless_usual(key: str, start: Any, usual: Any, preset: str) -> str:
    return DEFAULT if getattr(start, key) == getattr(usual, key) else f"preset {preset}"


def _of_luigi(s: Settings) -> Iterator[Setting]:
    """Luigi's sections: what the file says of them, and what we say where it does not. Luigi has more keys."""
    ours = defaults.values(s.file)
    for name in sorted(LUIGI):
        said = s.source.section(name)
        yield from (_said(s, name, key, str(text)) for key, text in said.items())
        unsaid = {key: text for (of, key), text in ours.items() if of == name and key not in said}
        yield from (Setting(name, key, text, DEFAULT) for key, text in unsaid.items())
