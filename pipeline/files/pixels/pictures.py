"""Numbered images in a folder, as a source of pixels.  [pixels] -> crops -> features"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from cache.arrays import Ints
from pipeline.accounting import NOT_NOW
from pipeline.errors import PipelineError, RawDataError, is_temporary, note_fault
from pipeline.files.pixels.decode import PictureError, decode, picture_size
from pipeline.files.pixels.frames import Frame, below, increasing, text_digest
from pipeline.files.raw.files import (
    cache_result,
    digest_or_problem,
    folder_digest,
    list_names,
    open_regular,
)

MAX_BYTES: Final = 1 << 28  # of an image file
OTHER_SIZE: Final = "other_picture_size"  # kind of a frame's problem
_NUMBER: Final = re.compile(r"\{:0(\d{1,2})d\}")


@dataclass(frozen=True, slots=True)
class Pictures:
    """A folder of numbered image files: frame i is the file with the number i + `first`.

    `pattern` is the path of a file below `root`, with a format in place of the number in its name,
    such as "frames/0001/{:06d}.jpg". Numbers may be missing: those frames have a problem.
    """

    root: Path
    pattern: str
    first: int = 0
    random_access: ClassVar[bool] = True

    def __post_init__(self) -> None:
        below(self.root, self.pattern)
        folder, _, name = self.pattern.rpartition("/")
        if len(_NUMBER.findall(name)) != 1 or _NUMBER.search(folder):
            expected = "a pattern that needs one number like {:06d}, in the file's name"
            raise RawDataError(self.root, "pictures", expected, repr(self.pattern), "Rename them.")

    @property
    def spec(self) -> str:
        return f"pictures:{self.pattern}+{self.first}"

    @property
    def place(self) -> Path:
        return (self.root / self.pattern).parent

    @classmethod
    def from_spec(cls, root: Path, rest: str) -> Pictures:
        """The source of a spec "pictures:REST". Raises PipelineError for an invalid one."""
        pattern, plus, first = rest.rpartition("+")
        if not plus or not first.isdecimal():
            raise PipelineError(
                f"pixel source 'pictures:{rest}' does not end in '+' and the first image's number"
            )
        return cls(root, pattern, int(first))

    def path(self, index: int) -> Path:
        """The file of a frame. It need not exist."""
        before, digits, after = self._name_parts
        return self.place / f"{before}{index + self.first:0{digits}d}{after}"

    @property
    def _name_parts(self) -> tuple[str, int, str]:
        """What is before a file's number, the number's least digits, and what is after it."""
        before, digits, after = _NUMBER.split(self.pattern.rpartition("/")[2])
        return before, int(digits), after

    @cache_result
    def indices(self) -> Ints:
        """Frame indices of the images that exist, ascending, by the names of the files. Empty if
        there is no folder.
        """
        before, digits, after = self._name_parts
        # one search in all names, between zeros, is faster than a match for each
        numbered = re.compile(
            rf"(?:^|\0){re.escape(before)}([0-9]{{1,18}}){re.escape(after)}(?=\0|\Z)"
        )
        try:
            names = list_names(self.place)
        except (FileNotFoundError, NotADirectoryError):
            return np.empty(0, np.int64)
        indices = []
        for text in numbered.findall("\0".join(names)):
            number = int(text)
            # 7.jpg is not 000007.jpg
            is_padded = text == f"{number:0{digits}d}"
            if is_padded and number >= self.first:
                indices.append(number - self.first)
        return np.array(sorted(indices), np.int64)

    def count_frames(self) -> int:
        """Number of frames up to the last image, missing ones among them."""
        return int(self.indices().max(initial=-1)) + 1

    @cache_result
    def size(self) -> tuple[int, int]:
        problem = "no such picture"
        for index in self.indices():
            try:
                return picture_size(_read_picture(self.path(int(index))))
            except PictureError as error:
                problem = str(error)
        file = self.root / self.pattern
        expected = "a readable image"
        do = "Unpack the images again."
        raise RawDataError(file, "size", expected, problem, do, reason="no_picture")

    def digest(self) -> str:
        """Digest of the names and sizes of all images, and of the content of three of them, because
        uncompressed images all have one size.
        """
        indices = self.indices().tolist()
        name = self.pattern.rpartition("/")[2]
        probed = []
        if indices:
            probed = [indices[0], indices[len(indices) // 2], indices[-1]]
        contents = [digest_or_problem(self.path(index)) for index in probed]
        return text_digest(f"pictures:{name}+{self.first}", folder_digest(self.place), *contents)

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        """Decode frames as `FrameSource.read` says. An image of another size than the video's, in
        whose pixels the labels are, is a problem, too.
        """
        size: tuple[int, int] | None = None
        for index in increasing(frame_index):
            path = self.path(index)
            try:
                image = decode(_read_picture(path))
            except PictureError as error:
                yield Frame(index, None, f"{path} {error}", error.kind)
                continue
            if size is None:
                size = Pictures.size(self)  # as stored: not turned
            height, width, _ = image.shape
            if (width, height) == size:
                yield Frame(index, image, None)
            else:
                problem = (
                    f"{path} has {width} x {height} px, and the video {size[0]} x {size[1]}: "
                    "unpack the images again, without resizing them, and convert again"
                )
                yield Frame(index, None, problem, OTHER_SIZE)


class TurnedPictures(Pictures):
    """Images stored on their side: frames are rotated by 90 degrees clockwise, and so is `size`."""

    __slots__ = ()

    @property
    def spec(self) -> str:
        return f"turned:{self.pattern}+{self.first}"

    def size(self) -> tuple[int, int]:
        width, height = Pictures.size(self)
        return height, width

    def digest(self) -> str:
        return text_digest(f"turned:{Pictures.digest(self)}")

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        for frame in Pictures.read(self, frame_index):
            if frame.image is None:
                yield frame
            else:
                yield Frame(frame.index, np.ascontiguousarray(np.rot90(frame.image, -1)), None)


def _read_picture(path: Path) -> bytes:
    """Read the bytes of an image file. Raises PictureError if it is missing, unreadable or has over
    MAX_BYTES.
    """
    try:
        with open_regular(path) as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PictureError("picture_missing", "does not exist") from None
    except OSError as error:
        note_fault(error)
        kind = NOT_NOW if is_temporary(error) else "picture_unreadable"
        raise PictureError(kind, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise PictureError("picture_size", f"has over {MAX_BYTES} bytes")
    return data
