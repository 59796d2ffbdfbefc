"""The player: a video, its tracks drawn over it, and a row for each track.  tracks -> [page]

`write_player` writes the tracks of one video as one HTML file. Its video has the clip's frames,
small, and their own times; the page draws boxes and joints over the frame that the browser shows.
`player_tracks` chooses what of the clip it has, `player_pictures` makes video and portraits, and
`player_data` the data of what is drawn.

Names and messages come from untrusted files: the template escapes them, the data are JSON without
"<", and the page's content security policy allows its own script and style alone, by their hashes.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count, first_few
from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Image
from pipeline.grades.words import WORDS
from pipeline.show.bodies import LabelledBodies
from pipeline.show.clip import DrawnTrack, only_video, paint_bodies, people_by_frame
from pipeline.show.page import TEMPLATES, Solid, policy_of, templates, write, write_motions
from pipeline.show.player_data import describe_place, hex_colour, player_data
from pipeline.show.player_pictures import PageImages, PictureRecorder
from pipeline.show.player_pictures import Paint as Paint
from pipeline.show.player_tracks import PlayedTrack, ShownFrames, WholeClip, choose_people
from pipeline.show.tracks import PageContent, ShownTrack

LARGEST: Final = 90_000_000  # bytes of video and data; portraits and texts are below 10 MB
UNKNOWN: Final = "unknown"  # word of a track without one


class Page(NamedTuple):
    """What a command writes around the player."""

    by: str = "show"  # the command
    folders: tuple[Path, ...] = ()  # of its templates
    template: str = "player.html"
    title: str = ""  # default: the split and the video
    digest: str = ""  # of what is shown, for `shows`; default: that of the split
    style: str = ""  # more CSS
    shows_bodies: bool = False  # from the start
    variables: Mapping[str, Any] = {}


ITS_OWN: Final = Page()


def write_player(
    shown: PageContent,
    out: Path,
    *,
    start_s: float = 0,
    paint: Paint | None = None,
    page: Page = ITS_OWN,
    progress: Progress = silent,
) -> list[str]:
    """Write the tracks of one video, read with all of their rows, as a page with a player. The
    file appears when it is complete.

    start_s: of the part of a clip that is too long for a page, in s from its start. paint: draws
    bodies; None: those of the labels, if `shown` has a body model. Returns what the page leaves
    out, in sentences.

    Raises:
        PipelineError: no tracks; tracks of several videos or without images; nothing at that
            start; H.264 cannot be written.
        RawDataError: no image of the video can be read.
    """
    video, source = only_video(shown, out)
    people, left_out = choose_people(shown.tracks)
    clip = WholeClip.find(people, source)
    part = clip.choose_part(people, start_s)
    left_out += clip.describe_part(part, video)
    tracks = [PlayedTrack.from_person(person, part) for person in people]
    played = [track for track in tracks if len(track.frames)]
    if paint is None:
        paint = _labelled_bodies(shown, people)
    pictures = PictureRecorder(source, part, played, paint)
    recorded = pictures.record(lambda done: progress(done, len(part.times), video))
    if recorded.undecoded:
        frames = first_few(recorded.undecoded)
        left_out.append(f"not decoded, and the frame before is shown: {frames}")
    part = part._replace(times=part.times[: recorded.n_frames])
    _write_page(shown, out, page, _PlayerContent(video, part, played, pictures, recorded, left_out))
    return left_out


def write_video(
    shown: PageContent, out: Path, *, start_s: float = 0, progress: Progress = silent
) -> list[str]:
    """Write the page of a video's tracks: a player, or of motions without images, their 3D joints.
    Arguments, results and errors are those of `write_player`.
    """
    if shown.tracks and shown.tracks[0].has_images:
        return write_player(shown, out, start_s=start_s, progress=progress)
    write_motions(shown, out)
    return []


def _labelled_bodies(shown: PageContent, people: Sequence[DrawnTrack]) -> Paint | None:
    """Draws the bodies of the labels; None without any."""
    if shown.body is None or not any("pose" in person.track.rows for person in people):
        return None
    bodies = LabelledBodies(shown.body)
    present_in = people_by_frame(people)
    return lambda frame, image: paint_bodies(frame, image, present_in[frame.index], bodies)


# --------------------------------------------------------------------------------------------------
# the page


class _Row(NamedTuple):
    """A track as the template shows it."""

    track: ShownTrack
    name: str
    colour: str
    word: str
    described: str
    runs: str  # paths of the bar, in frames
    outside: str
    jumps: str
    portraits: Image
    portrait_frames: list[int]
    solid: Solid  # of those frames
    place: str  # of the first row, in lines of corrections


class _PlayerContent(NamedTuple):
    """All that a page shows."""

    video: str
    part: ShownFrames
    tracks: list[PlayedTrack]
    pictures: PictureRecorder
    recorded: PageImages
    left_out: list[str]


def _write_page(shown: PageContent, out: Path, page: Page, player: _PlayerContent) -> None:
    environment = templates(page.by, *page.folders)
    script = (TEMPLATES / "player.js").read_text()
    style = (TEMPLATES / "player.css").read_text() + page.style
    data = player_data(
        player.part, player.tracks, shown.name, has_bodies=player.pictures.has_bodies
    )
    encoded = base64.b64encode(player.recorded.video).decode()
    if len(data) + len(encoded) > LARGEST:
        raise PipelineError(
            f"{out}: the page would have more than {LARGEST // 1_000_000} MB. `show` draws a clip: "
            "--out CLIP.mp4"
        )
    words = Counter[str](track.person.track.grade.word or UNKNOWN for track in player.tracks)
    graded = [f"{words[word]} {word}" for word in (*WORDS, UNKNOWN) if words[word]]
    width, height = player.part.picture
    content = {
        "title": page.title or f"{shown.name}/{player.video}",
        "policy": policy_of(style, script),
        "digest": page.digest or shown.digest,
        "shown": shown,
        "facts": f"{count(player.recorded.n_frames, 'frame')}, "
        f"{count(len(player.tracks), 'track')}: {', '.join(graded)}; from {shown.origin}",
        "warnings": [*shown.warnings, *player.left_out],
        "width": width,
        "height": height,
        "n_frames": player.recorded.n_frames,
        "has_bodies": player.pictures.has_bodies,
        "shows_bodies": page.shows_bodies,
        "rows": [
            _describe_row(track, strip, shown.body)
            for track, strip in zip(player.tracks, player.recorded.portraits, strict=True)
        ],
        "style": style,
        "script": script,
        "data": data,
        "clip": f"data:video/mp4;base64,{encoded}",
    }
    write(environment.get_template(page.template).stream(content | dict(page.variables)), out)


def _describe_row(track: PlayedTrack, strip: Image, body: Path | None) -> _Row:
    person = track.person
    runs = np.split(track.frames, track.starts[1:])
    gaps = len(runs) - 1
    facts = [
        *person.track.grade.reasons,
        count(len(track.frames), "frame"),
        count(gaps, "gap") if gaps else "no gap",
    ]
    if track.is_jump.any():
        facts.append(count(int(track.is_jump.sum()), "jump"))
    if track.is_outside.any():
        outside = count(int(track.is_outside.sum()), "frame")
        facts.append(f"joints outside the crop in {outside}")
    step = track.frames_step
    chosen = track.rows[[*track.portraits]]
    rows = {name: column[chosen] for name, column in person.track.rows.items()}
    return _Row(
        track=person.track,
        name=person.name,
        colour=hex_colour(person),
        word=person.track.grade.word or UNKNOWN,
        described="; ".join(facts),
        runs="".join(f"M{run[0]} 2H{run[-1] + step}V8H{run[0]}Z" for run in runs),
        outside="".join(
            f"M{frame} 6h{step}v2h-{step}z" for frame in track.frames[track.is_outside]
        ),
        jumps="".join(f"M{frame + 0.5} 0V10" for frame in track.frames[track.is_jump]),
        portraits=strip,
        portrait_frames=rows["frame_index"].tolist(),
        solid=Solid.from_rows(rows, body),
        place=describe_place(*(person.track.rows[name][0] for name in ("frame_index", "bbox"))),
    )
