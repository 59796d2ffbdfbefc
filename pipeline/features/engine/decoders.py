"""The decoding processes, seen from the one that owns the network.  pixels -> [crops] -> features

A process that dies or shows no sign of life is replaced, and what it was asked for is asked for again. Killed processes
are nobody's fault, or almost: a video that is gone through again is for long at the one frame that comes next. A frame
at which two others ended is set aside, with the rest of its video where there is no way past it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Final

from pipeline.errors import PipelineError
from pipeline.features.engine.memory import SharedCrops
from pipeline.features.engine.pieces import Done, Failed, Piece, Rest
from pipeline.features.streams.base import ByteStream
from pipeline.processes import ONE_THREAD

AHEAD: Final = 2  # pieces that a process has been given: one to do, and one to go on with
STRIKES: Final = 2  # processes that may end at a frame before it is set aside
KILLS: Final = 6  # the same for those that somebody has killed: the system, for its memory, or a person, for no reason
FRUITLESS: Final = 4  # processes in a row that may end before they have done anything at all; or at one video's check
LAST_WORDS: Final = 2.0  # s that a killed process is waited for
QUIET: Final = 300.0  # s that one may take to start, or to compare a video's pixels, of which there is no sign
LOOK: Final = 2.0  # s that count between two looks at most: in more, this process was stopped itself, or waited

VIDEO_THREADS: Final = "OPENCV_FFMPEG_THREADS"  # of one video's decoder: cores that no process has, if there are any

HUNG: Final = "decoder_hung"
CRASHED: Final = "decoder_crashed"
AFTER: Final = "after_decoder_failure"  # frames of a video behind one at which decoding hangs or crashes


@dataclass(slots=True, eq=False)
class _Process:
    """One decoding process and what it has been given."""

    process: subprocess.Popen[bytes]
    pipe: Connection[Any, Any]
    given: deque[Piece] = field(default_factory=deque)
    pulse: int = 0
    seen: float = 0.0  # when the pulse was last another one


class Decoders:
    """`n` processes that fill the slots of `memory`. Close it, or leave its `with` block, and they end.

    `timeout`: seconds without a sign of life after which a process counts as hung.
    """

    def __init__(self, n: int, memory: SharedCrops, *, timeout: float, encoder: ByteStream | None = None) -> None:
        self._n, self._memory, self._timeout, self._encoder = n, memory, timeout, encoder
        self._processes: list[_Process] = []
        self._strikes: Counter[tuple[int, int, bool]] = Counter()  # (job, frame, killed) -> processes that ended there
        self._lost: dict[int, tuple[str, str]] = {}  # job in order -> why there is nothing behind that frame
        self._struck: dict[int, dict[int, tuple[str, str]]] = {}  # piece -> frames that nobody is asked for any more
        self._fruitless = 0
        self._looked = 0.0  # when `hung` was last asked

    def begin(self) -> None:
        """Start what is not running: at first all, later those that have ended while there was nothing to do."""
        self._fruitless, self._looked = 0, time.monotonic()
        for number in range(self._n):
            if number == len(self._processes):
                self._processes.append(self._start(number))
            elif self._processes[number].process.poll() is not None:
                self._processes[number].pipe.close()
                self._processes[number] = self._start(number)

    def __enter__(self) -> Decoders:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connections(self) -> list[Connection[Any, Any]]:
        """What becomes readable when `answers` has something to say."""
        return [one.pipe for one in self._processes]

    def room(self, number: int) -> int:
        """How many pieces a process may be given now."""
        return AHEAD - len(self._processes[number].given)

    @property
    def outstanding(self) -> int:
        """Pieces that have been given and not been answered."""
        return sum(len(one.given) for one in self._processes)

    def give(self, number: int, piece: Piece) -> None:
        """Ask a process for a piece."""
        one = self._processes[number]
        if not one.given:
            one.seen = time.monotonic()
        one.given.append(piece)
        self._send(number, piece)

    def answers(self, ready: Sequence[object]) -> Iterator[tuple[int, Done]]:
        """(process, what it has done) of those whose pipes are ready. Raises what a process has met.

        PipelineError when processes end again and again before they have done anything: they cannot even start.
        """
        for number, one in enumerate(self._processes):
            if one.pipe not in ready:
                continue
            try:
                answer = one.pipe.recv()
            except (EOFError, OSError):  # also in the midst of an answer
                yield from self._ended(number, CRASHED)
                continue
            if isinstance(answer, Failed):
                raise answer.error
            self._fruitless = 0
            one.seen, one.pulse = time.monotonic(), self._pulse(number)
            piece = one.given.popleft()
            assert piece.number == answer.piece
            answer.problems |= self._struck.pop(piece.number, {})
            yield number, answer

    def hung(self) -> Iterator[tuple[int, Done]]:
        """Replace processes that show no sign of life; as `answers` where that settles a piece."""
        now = time.monotonic()
        unseen, self._looked = max(0.0, now - self._looked - LOOK), now
        for number, one in enumerate(self._processes):
            if not one.given:
                continue
            pulse, frame = self._memory.beats[number].tolist()
            one.seen += unseen
            if pulse != one.pulse:
                one.pulse, one.seen = pulse, now
            elif now - one.seen > (self._timeout if frame >= 0 else max(self._timeout, QUIET)):
                yield from self._ended(number, HUNG)

    def rest(self, seconds: float) -> None:
        """Nothing more comes for now: processes end by themselves when nothing has come for so long."""
        for number in range(len(self._processes)):
            self._send(number, Rest(seconds))

    def close(self) -> None:
        """End all processes, at once."""
        for one in self._processes:
            one.pipe.close()
            one.process.kill()
        for one in self._processes:
            _wait(one.process)

    def _pulse(self, number: int) -> int:
        return int(self._memory.beats[number, 0])

    def _send(self, number: int, message: object) -> None:
        with contextlib.suppress(ConnectionError):  # it has ended: its pipe tells, when it is read
            self._processes[number].pipe.send(message)

    def _start(self, number: int) -> _Process:
        ours, theirs = Pipe()
        self._memory.beats[number] = (0, -1)
        numbers = (theirs.fileno(), self._memory.fd, self._memory.n_slots, self._memory.n_workers, number, os.getpid())
        process = subprocess.Popen(  # noqa: S603 - this very Python, and numbers
            [sys.executable, "-m", "pipeline.features.engine.worker", *map(str, numbers)],
            process_group=0,  # Ctrl-C is for the parent
            pass_fds=(theirs.fileno(), self._memory.fd),
            stdin=subprocess.DEVNULL,
            env={**os.environ, **ONE_THREAD, VIDEO_THREADS: str(max(1, cores() // len(self._memory.beats)))},
        )
        theirs.close()
        if self._encoder is not None:
            with contextlib.suppress(ConnectionError):  # it has ended already: its pipe tells, when it is read
                ours.send(self._encoder)
        return _Process(process, ours, seen=time.monotonic())

    def _ended(self, number: int, how: str) -> Iterator[tuple[int, Done]]:
        """A new process for one that ended or is ended now; it is given what the old one had not done."""
        old = self._processes[number]
        begun, frame = self._memory.beats[number].tolist()
        old.process.kill()
        code = _wait(old.process)
        old.pipe.close()
        if begun == 0 and (code != 0 or old.given):  # else it has rested for as long as it was told
            self._fruitless += 1
            if self._fruitless >= FRUITLESS:
                raise PipelineError(
                    f"processes that decode pictures cannot start: the last one ended with {code}. What they said "
                    "stands above. Finished shards are kept; run it again when that is mended."
                )
        self._processes[number] = self._start(number)
        given = list(old.given)
        if given and frame >= 0:
            given = self._strike(given, frame, how, code)
        elif given and given[0].first:
            self._require_compared(given[0], how, code)
        for piece in given:
            if piece.frames:
                self.give(number, piece)
            else:
                yield number, Done(piece.number, problems=self._struck.pop(piece.number))

    def _require_compared(self, piece: Piece, how: str, code: int | None) -> None:
        """Raise PipelineError when processes end again and again where they compare a video's pixels."""
        key = (piece.job, -1, False)
        self._strikes[key] += 1
        if self._strikes[key] >= FRUITLESS:
            last = _how_it_ended(how, code, max(self._timeout, QUIET))
            raise PipelineError(
                f"{piece.pixels.name}: {FRUITLESS} processes, one after the other, did not get past comparing its "
                f"pixels with those that were converted: the last one {last}. Is the storage that it lies on there? "
                "Finished shards are kept; run it again when that is mended."
            )

    def _strike(self, given: Sequence[Piece], frame: int, how: str, code: int | None) -> list[Piece]:
        """The same pieces, without what cannot be had: a frame at which processes ended too often."""
        guilty = given[0]
        killed = how == CRASHED and code in (-signal.SIGKILL, -signal.SIGTERM)
        most = KILLS if killed else STRIKES
        self._strikes[guilty.job, frame, killed] += 1
        if self._strikes[guilty.job, frame, killed] < most:
            return list(given)
        ended = _how_it_ended(how, code, self._timeout)
        said = f"{guilty.pixels.name}, frame {frame}: the process that decoded it {ended}, {most} times"
        if guilty.pixels.in_order:
            self._lost[guilty.job] = (AFTER, said)
        left = []
        for piece in given:
            lost = {}
            if piece.job == guilty.job:
                lost = {
                    one.frame: (how if one.frame == frame else AFTER, said)
                    for one in piece.frames
                    if one.frame == frame or (guilty.pixels.in_order and one.frame > frame)
                }
            if lost:
                self._struck.setdefault(piece.number, {}).update(lost)
            left.append(replace(piece, frames=tuple(one for one in piece.frames if one.frame not in lost)))
        return left

    def is_lost(self, job: int) -> bool:
        """Whether decoding a job in order has hung or crashed for good: nobody is asked for the rest of it."""
        return job in self._lost

    def lost(self, job: int) -> tuple[str, str]:
        """(kind, in words) why."""
        return self._lost[job]


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def _how_it_ended(how: str, code: int | None, seconds: float) -> str:
    return f"showed no sign of life for {seconds:g} s" if how == HUNG else f"ended with {code}"


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """A killed process's exit code; None for one that the system cannot end, as in a read that hangs."""
    try:
        return process.wait(LAST_WORDS)
    except subprocess.TimeoutExpired:
        return None


def ready(connections: Sequence[Any], timeout: float) -> list[Any]:
    """Those of the connections that have something to say, waited for at most `timeout` s."""
    return wait(connections, timeout)
