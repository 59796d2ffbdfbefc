"""The page of a split: how good its tracks are, and pictures of the worst.  cache -> [page]

`SplitPage` writes a folder. `index.html` lists the worst tracks, which its script sorts and filters
without a server; `pictures/` are of the first of them, and `players/` of their videos. Without
scripts, the worst tracks are shown. Names and messages are text, as in all pages.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import command, count
from pipeline.errors import PipelineError
from pipeline.files.outputs import OutputRule
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import Frame, Image
from pipeline.grades.stored import count_words
from pipeline.grades.words import WORDS
from pipeline.people.boxes import crop_person
from pipeline.people.skeletons import KEYPOINTS_13
from pipeline.show.canvas import Canvas
from pipeline.show.drawing import SIDE_COLOURS, flat
from pipeline.show.page import PORTRAIT_QUALITY, TEMPLATES, policy_of, templates, write
from pipeline.show.player import UNKNOWN, write_video
from pipeline.show.player_data import json_data, pack
from pipeline.show.split.histograms import Histogram, make_histograms
from pipeline.show.split.tracks import BONES, ListedTrack, SplitTracks
from pipeline.show.tracks import PageContent, from_cache
from pipeline.show.video_file import encode_jpeg
from pipeline.steps.grading import describe_words

INDEX: Final = "index.html"
PICTURES: Final = 480  # tracks with a picture, the worst
CARDS: Final = 48  # tracks that are seen at once
PLAYERS: Final = 12  # videos with a player, the worst
PICTURE_PX: Final = 160
BACKGROUND: Final = 40  # level of grey behind stick figures
FOLDERS: Final = ("pictures", "players")


class SplitPage:
    """Writes the page of a split into a folder."""

    def __init__(self, shown: PageContent, split: cache.Split, progress: Progress = silent) -> None:
        """Read the tracks. shown: the split's facts, without tracks."""
        self._shown = shown
        self._split = split
        self._progress = progress
        self._tracks = SplitTracks.read(split, shown.body)
        # those of the listed tracks, the worst first
        self._videos = list(dict.fromkeys(track.video for track in self._tracks.listed))

    @property
    def words(self) -> dict[str, int]:
        """How many of all tracks are good, doubtful, bad and unknown."""
        return count_words(self._tracks.numbers)

    def write(self, out: Path, rule: OutputRule, *, n_players: int = 0) -> list[str]:
        """Write the folder, with players of so many videos. Returns what it leaves out, in
        sentences. `index.html` is written last: a folder without it is incomplete.
        """
        rule.begin_folder(out, (INDEX, *FOLDERS))
        (out / INDEX).unlink(missing_ok=True)
        for folder in FOLDERS:
            (out / folder).mkdir(exist_ok=True)
        files = [*self._write_pictures(out)]
        left_out: list[str] = []
        players = [*self._write_players(out, n_players, left_out)]
        self._write_index(out, rule.command, players, left_out)
        rule.end_folder(out, [INDEX, *files, *map(_player_file, players)])
        return left_out

    def _write_pictures(self, out: Path) -> Iterator[str]:
        """Write a picture of each of the worst tracks, and yield its file."""
        wanted: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        worst = self._tracks.listed[:PICTURES]
        for place, track in enumerate(worst):
            wanted[track.video][track.frame].append(place)
        n_done = 0
        for video, places in wanted.items():
            for frame in self._read_frames(video, sorted(places)):
                for place in places[frame.index]:
                    self._progress(n_done, len(worst), worst[place].name)
                    picture = encode_jpeg(_draw(worst[place], frame.image), PORTRAIT_QUALITY)
                    (out / _picture_file(place)).write_bytes(picture)
                    n_done += 1
                    yield _picture_file(place)

    def _read_frames(self, video: int, indices: Sequence[int]) -> Iterable[Frame]:
        source = self._split.videos[video].source
        if self._shown.raw is None or not source:
            return [Frame(index, None, None) for index in indices]
        return sources.parse(self._shown.raw, source).read(indices)

    def _write_players(self, out: Path, n_players: int, left_out: list[str]) -> Iterator[int]:
        """Write players of the worst videos, and yield their places among the videos."""
        shown = self._shown
        for place, number in enumerate(self._videos[:n_players]):
            video = self._split.videos.names[number]
            try:
                played = from_cache(
                    self._split.root, shown.name, video, raw=shown.raw, body=shown.body
                )
                write_video(played, out / _player_file(place), progress=self._progress)
            except PipelineError as error:
                left_out.append(f"{video} has no player: {error}")
            else:
                yield place

    # ----------------------------------------------------------------------------------------------
    # index.html

    def _write_index(
        self, out: Path, by: str, players: Sequence[int], left_out: Sequence[str]
    ) -> None:
        numbers, worst, listed, unlike = self._tracks
        style = "".join((TEMPLATES / name).read_text() for name in ("player.css", "split.css"))
        script = (TEMPLATES / "split.js").read_text()
        histograms = make_histograms(numbers, worst)
        n_tracks = len(numbers)
        beyond = []
        if n_tracks > len(listed):
            beyond.append(f"Of {count(n_tracks, 'track')}, the worst {len(listed):,} are listed.")
        content = {
            "policy": policy_of(style, script, images="'self' data: file:"),
            "shown": self._shown,
            "facts": f"{describe_words(self.words)}; from {self._shown.origin}",
            "warnings": [*self._shown.warnings, *beyond, *left_out],
            "words": Counter(map(_word, listed)),
            "histograms": histograms,
            "has_unlike": bool(unlike),
            "tracks": listed[:CARDS],
            "style": style,
            "script": script,
            "data": self._data(players, histograms),
        }
        write(templates(by).get_template("split.html").stream(content), out / INDEX)

    def _data(self, players: Sequence[int], histograms: Sequence[Histogram]) -> str:
        """JSON of the listed tracks, without "<". Arrays are little-endian, in base64. Words and
        reasons are numbers in lists of them.
        """
        _, _, listed, unlike = self._tracks
        videos = [self._split.videos.names[video] for video in self._videos]
        places = {video: place for place, video in enumerate(self._videos)}
        video_of = [places[track.video] for track in listed]
        words = [*WORDS, UNKNOWN]
        phrases: dict[str, int] = {}
        reasons = [
            [phrases.setdefault(text, len(phrases)) for text in track.grade.reasons]
            for track in listed
        ]
        return json_data(
            {
                "split": self._shown.name,
                "command": self._command(),
                "videos": videos,
                "players": players,
                "video_of": pack(np.array(video_of), "<u2"),
                "names": [
                    track.name.removeprefix(f"{videos[place]}/")
                    for track, place in zip(listed, video_of, strict=True)
                ],
                "words": words,
                "word_of": "".join(str(words.index(_word(track))) for track in listed),
                "phrases": [*phrases],
                "reasons": reasons,
                "unlike": pack(np.array([place for place, _ in unlike]), "<u2"),
                "limbs": [limb for _, limb in unlike[:PICTURES]],
                "bins": [pack(histogram.of_tracks, "u1") for histogram in histograms],
                "figures": pack(np.array([track.figure for track in listed]), "u1"),
                "bones": [[a, b, _side(a, b)] for a, b in BONES],
                "colours": SIDE_COLOURS,
                "cards": CARDS,
                "pictures": PICTURES,
                "picture_px": PICTURE_PX,
            }
        )

    def _command(self) -> str:
        """The command that writes the player of a video, without its name."""
        words = ["show", self._shown.name, "--cache", str(self._split.root)]
        recorded = self._split.provenance.get("raw")
        if self._shown.raw is not None and str(self._shown.raw) != recorded:
            words += ["--raw", str(self._shown.raw)]
        return command(*words, "--out", "video.html", "--video")


def _draw(track: ListedTrack, image: Image | None) -> Image:
    """A track's picture: its crop with joints, or without an image, a stick figure."""
    picture = np.full((PICTURE_PX, PICTURE_PX, 3), BACKGROUND, np.uint8)
    if image is not None:
        box = np.concatenate([track.centre, track.size])
        with suppress(ValueError):  # invalid box
            picture = crop_person(image, box, 1, PICTURE_PX)
    Canvas(picture).draw_skeleton(flat(track.joints, PICTURE_PX * track.places))
    return picture


def _picture_file(place: int) -> str:
    return f"pictures/{place}.jpg"


def _player_file(place: int) -> str:
    return f"players/{place}.html"


def _word(track: ListedTrack) -> str:
    return track.grade.word or UNKNOWN


def _side(a: int, b: int) -> str:
    """The side of a bone between two of KEYPOINTS_13, by their first letters."""
    sides = {"l": "left", "r": "right"}
    first = KEYPOINTS_13[a][0]
    return sides.get(first, "middle") if first == KEYPOINTS_13[b][0] else "middle"
