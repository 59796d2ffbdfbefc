"""What is in the cache, and what became of everything that was found.  raw -> tracks -> features -> [report]"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import numpy as np

import cache
from pipeline import datasets
from pipeline.cli.console import duration
from pipeline.cli.text import command, count
from pipeline.commands.maintenance import leaks
from pipeline.exchange.show.tracks import rejected
from pipeline.reasons import SAMPLED, reason
from report.data.splits import Opened, is_demo, is_untrained, n_rows
from report.figures import Cell
from report.page import Section

OF: Final = {"videos": "videos", "tracks": "tracks", "frames": "person-frames"}  # in manifests -> on the page
MOST_REJECTED: Final = 5  # rejected videos that are listed of a split; the others are counted

# On which terms each dataset is given out, and the work to cite; in full: docs/licences.md, and its own page.
YOUTUBE: Final = "the videos are their owners'"
REGISTERED: Final = "for research, after registration"
RELEASES: Final[Mapping[str, tuple[str, str]]] = {
    "penn_action": ("none stated", "Zhang, Zhu, Derpanis: From Actemes to Action, ICCV 2013"),
    "posetrack": (
        REGISTERED,
        "Andriluka et al.: PoseTrack: A Benchmark for Human Pose Estimation and Tracking, CVPR 2018",
    ),
    "insta_variety": (YOUTUBE, "Kanazawa, Zhang, Felsen, Malik: Learning 3D Human Dynamics from Video, CVPR 2019"),
    "kinetics": (YOUTUBE, "Kay et al.: The Kinetics Human Action Video Dataset, arXiv:1705.06950, 2017"),
    "mpi_inf_3dhp": (
        REGISTERED,
        "Mehta et al.: Monocular 3D Human Pose Estimation in the Wild Using Improved CNN Supervision, 3DV 2017",
    ),
    "h36m": (
        "for research, after registration and a signed licence",
        "Ionescu, Papava, Olaru, Sminchisescu: Human3.6M, TPAMI 36(7), 2014",
    ),
    "3dpw": (
        REGISTERED,
        "von Marcard et al.: Recovering Accurate 3D Human Pose in the Wild Using IMUs and a Moving Camera, ECCV 2018",
    ),
    "amass": (
        f"{REGISTERED}; of each subset besides",
        "Mahmood et al.: AMASS: Archive of Motion Capture as Surface Shapes, ICCV 2019, and its subsets",
    ),
    "videos": ("those of the clips", "the detector that found the people in them"),
}


def overview_section(opened: Opened, used: Mapping[str, str] | None = None) -> Section:
    """Datasets and splits: how much there is, what was left out, in which streams. used: what the runs use each for."""
    rows: list[tuple[Cell, ...]] = []
    sizes = [(len(np.unique(split.tracks.video)), len(split.tracks), n_rows(split)) for split in opened.splits]
    for split, size in zip(opened.splits, sizes, strict=True):
        streams = ", ".join(_stream(split, name, opened.missing[split.name, name]) for name in split.streams)
        use = () if used is None else (used.get(split.name, "nothing"),)
        whose, after = "demo" if is_demo(split) else "real", (streams or "none", *use, _left_out_of(split))
        rows.append((split.name, whose, *size, _person_time([split]), *after))
    if len(rows) > 1:
        blank = ("",) * (len(rows[0]) - 6)
        rows.append(("all", "", *map(sum, zip(*sizes, strict=True)), _person_time(opened.splits), *blank))
    header = ("split", "data", "videos", "tracks", "rows", "person-time", "streams")
    data = {
        "header": (*header, *(() if used is None else ("used for",)), "left out, by reason"),
        "rows": rows,
        "problems": opened.problems,
        "gone": [(name, use) for name, use in (used or {}).items() if name not in {s.name for s in opened.splits}],
        "releases": [(name, *RELEASES[name]) for name in opened.datasets if name in RELEASES],
        "demo": any(map(is_demo, opened.splits)),
    }
    found = leaks.compare_names(opened.splits)
    data |= {"shared": leaks.summary(found), "leaks": any(one.leaks for one in found)}
    data["leaks_command"] = command("leaks", "--cache", str(opened.root))
    line = f"{count(len(opened.splits), 'split')} of {count(len(opened.datasets), 'dataset')}, "
    line += count(sum(map(n_rows, opened.splits)), "row")
    return Section("datasets", "Datasets and splits", "overview.html", data, line, bool(opened.problems))


def accounting_section(opened: Opened) -> Section:
    """What the reasons mean, rejected videos, and what was found beside what the releases have."""
    recorded = [split for split in opened.splits if "accounting" in split.manifest]
    counted = left_out(recorded)
    faults_first = sorted({name for _, name in counted}, key=lambda name: (reason(name).by_design, name))
    found = ((split.name, *rejected(split)) for split in recorded)
    faulty = [{"split": name, "n": n, "first": [*islice(texts, MOST_REJECTED)]} for name, n, texts in found if n]
    coverage = list(_coverage(recorded))
    data = {
        "reasons": [
            (
                name,
                "sampling" if name in SAMPLED else "by design" if reason(name).by_design else "something is wrong",
                ", ".join(f"{n:,} {what}" for (what, of), n in counted.items() if of == name),
                reason(name).meaning,
            )
            for name in faults_first
        ],
        "rejected": faulty,
        "command": command("status", "--all", "--cache", str(opened.root)),
        "coverage_header": ("split", "of", "found", "in the release", "coverage, %"),
        "coverage": coverage,
        "short": [
            f"{of}: {found:,} {what} found of {known:,} in the release"
            for of, what, found, known, _ in coverage
            if found < known
        ],
        "demo": [split.name for split in recorded if is_demo(split)],
        "unrecorded": [split.name for split in opened.splits if split not in recorded],
    }
    by_design, wrong = frames_left_out(opened.splits)
    line = f"{by_design:,} person-frames left out by design, {wrong:,} because of errors"
    return Section("accounting", "Left out", "accounting.html", data, line, bool(wrong or faulty))


def frames_left_out(splits: Sequence[cache.Split]) -> tuple[int, int]:
    """Person-frames that were left out by design, and because of errors. Those between sampled ones are neither."""
    frames = {name: n for (what, name), n in left_out(splits).items() if what == OF["frames"] and name not in SAMPLED}
    by_design = sum(n for name, n in frames.items() if reason(name).by_design)
    return by_design, sum(frames.values()) - by_design


def _person_time(splits: Sequence[cache.Split]) -> str:
    """Of the tracks whose rate is known: a row lasts `step` frames of the video."""
    seconds, n_known, n_tracks = 0.0, 0, 0
    for tracks in (split.tracks for split in splits):
        known = np.isfinite(tracks.fps) & (tracks.fps > 0)
        seconds += float((((tracks.stop - tracks.start) * tracks.step)[known] / tracks.fps[known]).sum())
        n_known += int(known.sum())
        n_tracks += len(tracks)
    if not n_known:
        return "rate not known"
    of = "" if n_known == n_tracks else f" (of {count(n_known, 'track')}; no rate for the others)"
    return duration(seconds) + of


def _stream(split: cache.Split, name: str, missing: int) -> str:
    """resnet50 (untrained, 8,192 rows missing)"""
    marks = ["untrained"] * is_untrained(split, name) + [f"{count(missing, 'row')} missing"] * bool(missing)
    return f"{name} ({', '.join(marks)})" if marks else name


def left_out(splits: Sequence[cache.Split]) -> Counter[tuple[str, str]]:
    """(what, reason) -> how many of the splits whose accounting was recorded. what: by `OF`'s values."""
    found: Counter[tuple[str, str]] = Counter()
    for totals in (split.manifest["accounting"] for split in splits if "accounting" in split.manifest):
        for of, what in OF.items():
            for name, n in (totals[of].get("dropped", {}) | totals[of].get("set_aside", {})).items():
                found[what, name] += n
    return found


def _left_out_of(split: cache.Split) -> str:
    """As `videos: 3 bad_labels; person-frames: 21 bad_labels`, the reasons but for sampling."""
    if "accounting" not in split.manifest:
        return "not recorded"
    totals, texts = split.manifest["accounting"], []
    for of, what in OF.items():
        reasons = totals[of].get("dropped", {}) | totals[of].get("set_aside", {})
        reasons = reasons | {"without a track": totals[of].get("without_tracks")}
        if some := ", ".join(f"{n:,} {name}" for name, n in reasons.items() if n and name not in SAMPLED):
            texts.append(f"{what}: {some}")
    return "; ".join(texts) or "nothing"


def _coverage(recorded: Sequence[cache.Split]) -> Iterator[tuple[str, str, int, int, float]]:
    """What was found beside what the release has, of real data: by split, else over all splits where they are here."""
    real: dict[str, list[cache.Split]] = {}
    for split in recorded:
        if not (is_demo(split) or split.manifest.get("reader", {}).get("imported")):
            real.setdefault(split.name.partition("/")[0], []).append(split)
    totals: list[tuple[str, Sequence[cache.Split], Mapping[str, int]]] = []
    for name, splits in real.items():
        totals += [(split.name, [split], split.manifest["accounting"].get("known", {})) for split in splits]
        dataset = datasets.get(name) if name in datasets.names() and not datasets.broken([name]) else None
        if dataset is not None and "all" in dataset.totals and len(splits) == len(dataset.splits):
            totals.append((f"{name}, all splits", splits, dataset.totals["all"].as_dict()))
    for of, counted, known in totals:
        for what, n in known.items():
            found = sum(split.manifest["accounting"][what]["found"] for split in counted)
            yield of, OF[what], found, n, 100 * found / n
