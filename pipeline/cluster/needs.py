"""What a worker must have and see to do what this process would do: told before anything is read.

A worker of another version may give other numbers, and one that does not see the raw folder would set every video
aside. So workers are asked before the first task, and those that come later when they begin.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import platform
import socket
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import cache
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from distributed import Client

OURS: Final = ("cache", "pipeline")
# Whose numbers go into the cache. Others only carry them.
LIBRARIES: Final = ("numpy", "scipy", "opencv-python", "h5py", "torch", "torchvision", "smplx")
ABSENT: Final = "not there"
GPU: Final = "GPU"  # the resource that workers offer which own one
TOLD: Final = 3  # problems of workers told in words; the rest are counted


@dataclass(frozen=True, slots=True)
class SplitSeen:
    """A committed split of the cache, in the state that it is in."""

    root: cache.Root
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Needs:
    """How things are in this process, which is how they must be in every worker."""

    code: tuple[tuple[str, str], ...]  # package -> sha256 of its source files
    versions: tuple[tuple[str, str], ...]  # library -> version
    folder: Path  # where relative paths begin
    paths: tuple[tuple[Path, str], ...]  # file or folder -> what is there
    split: SplitSeen | None = None

    @classmethod
    def here(cls, paths: Iterable[Path], *, plug_ins: Collection[str] = (), split: SplitSeen | None = None) -> Self:
        """What this process has, of the given files and folders. `plug_ins`: packages of others that take part."""
        return cls(
            code=tuple((package, code_digest(package)) for package in _packages(plug_ins)),
            versions=(("python", platform.python_version()), *((name, _version(name)) for name in LIBRARIES)),
            folder=Path.cwd(),
            paths=tuple((path, _look(path)) for path in dict.fromkeys(paths)),
            split=split,
        )

    @contextmanager
    def fulfilled(self) -> Iterator[None]:
        """In a task: as if in this process's folder. Raises PipelineError where the worker lacks something."""
        _require_here(self)
        with contextlib.chdir(self.folder):  # a worker does one task at a time
            yield

    def problem(self, threads: int) -> str:
        """What the process that asks lacks, in words; "" when it has everything."""
        return next(self._problems(threads), "")

    def _problems(self, threads: int) -> Iterator[str]:
        if threads != 1:
            yield (
                f"expected 1 thread in each worker, found {threads}: readers of videos are not made for several. Start "
                "it with --nthreads 1 --nworkers N, one process for each core or GPU"
            )
        for package, digest in self.code:
            if (found := code_digest(package)) != digest:
                yield (
                    f"expected the package {package!r} as it is here (sha256 {digest:.12}), found {found:.12}. Install "
                    "the same there, then start the worker again"
                )
        for library, version in self.versions:
            found = platform.python_version() if library == "python" else _version(library)
            if found != version:
                yield f"expected {library} {version}, as here, found {found}. Give workers the same environment"
        if not self.folder.is_dir():
            if relative := [path for path, _ in self.paths if not path.is_absolute()]:
                yield f"{relative[0]} is a path below {self.folder}, which is not there. Name it by its absolute path"
            return
        with contextlib.chdir(self.folder):
            yield from self._unseen()

    def _unseen(self) -> Iterator[str]:
        for path, there in self.paths:
            if (found := _look(path)) != there:
                yield f"{path}: expected {there}, as here, found {found}. It must be shared, under the same path"
        if self.split is not None:
            try:
                found = str(cache.open(self.split.root)[self.split.name].manifest["digest"])
            except cache.CacheError as error:
                yield f"the cache must be shared, under the same path or URL: {error}"
            else:
                if found != self.split.digest:
                    yield f"{self.split.root}: {self.split.name} is there in another state than here"


def require(client: Client, needs: Needs, workers: Collection[str]) -> dict[str, bool]:
    """Ask workers; address -> whether it owns a GPU, of those that are still there.

    Raises PipelineError for those that lack something, before any of them has read anything.
    """
    answers = client.run(_answer, needs, workers=list(workers), on_error="return") if workers else {}
    lacking, owners = [], {}
    for address, answer in answers.items():
        match answer:
            case (str(name), str(problem), bool(gpu)):
                owners[address] = gpu
                if problem:
                    lacking.append(_told(f"{address}, {name}", problem))
            case OSError():
                pass  # it has gone meanwhile
            case _:
                said = f"{type(answer).__name__}: {answer}"
                lacking.append(_told(address, f"it cannot answer: {said}. Install this package there, as here"))
    if lacking:
        more = f" And {len(lacking) - TOLD:,} more workers." if len(lacking) > TOLD else ""
        raise PipelineError(" ".join(lacking[:TOLD]) + more)
    return owners


def _packages(plug_ins: Collection[str]) -> list[str]:
    return sorted({*OURS, *plug_ins})


@functools.cache
def code_digest(package: str) -> str:
    """sha256 of a package's source files as they were when this process first asked; ABSENT when there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return ABSENT
    file = Path(spec.origin)
    files = sorted(file.parent.rglob("*.py")) if spec.submodule_search_locations else [file]
    total = hashlib.sha256()
    for one in files:
        total.update(one.relative_to(file.parent).as_posix().encode() + b"\0" + one.read_bytes() + b"\0")
    return total.hexdigest()


def _answer(needs: Needs, dask_worker: Any) -> tuple[str, str, bool]:
    """A worker's host, what it lacks, and whether it owns a GPU."""
    state = dask_worker.state
    return socket.gethostname(), needs.problem(state.nthreads), bool(state.total_resources.get(GPU))


@functools.cache  # of workers that have everything: what another one lacks may be mended
def _require_here(needs: Needs) -> None:
    from distributed import get_worker

    worker = get_worker()
    if problem := needs.problem(worker.state.nthreads):
        raise PipelineError(_told(f"{worker.address}, {socket.gethostname()}", problem))


def _told(worker: str, problem: str) -> str:
    return f"Dask worker at {worker}: {problem}."


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ABSENT


def _look(path: Path) -> str:
    """What is at a path, in words that differ between another file and this one."""
    try:
        found = path.stat()
    except OSError:
        return "nothing"
    return "a folder" if stat.S_ISDIR(found.st_mode) else f"a file of {found.st_size:,} bytes"
