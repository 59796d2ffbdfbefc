"""What a power cut leaves: every call that changes a folder, recorded; then the disks that it may have left behind.

A killed process loses nothing that the system has, so a kill shows nothing of this. The model is a harsh file system:

- Bytes survive when the file was synced after they were written. Otherwise they may be there, be missing, be zeros up
  to the file's new length, or be torn.
- A name that was made, changed or removed survives when its folder was synced afterwards. Otherwise each may have
  happened or not, whatever became of those before it.
- No file is lost by being renamed. From one folder to another, the old name may be there still beside the new one.

Ext4, XFS and Btrfs promise more than this.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.crash_runs import changes

Disk = dict[str, bytes | None]  # every file below the top with its bytes; every folder, with None
Contents = Callable[["File"], bytes]  # what a file holds after the cut

SUBSETS = 3  # how many of all that may be there in between


@dataclass(eq=False)
class File:
    """Bytes as programs see them, and those that were synced."""

    live: bytes = b""
    synced: bytes = b""

    def old(self) -> bytes:
        """Nothing new has survived."""
        return self.synced

    def new(self) -> bytes:
        """All has."""
        return self.live

    def zeros(self) -> bytes:
        """The new length has survived, the new bytes have not."""
        return self.synced[: len(self.live)].ljust(len(self.live), b"\0")

    def torn(self) -> bytes:
        """Half of what is new has survived."""
        pairs = enumerate(zip(self.live, self.synced, strict=False))
        same = next((at for at, (one, other) in pairs if one != other), min(len(self.live), len(self.synced)))
        end = same + (len(self.live) - same) // 2
        return self.live[:end] + self.synced[end:]


@dataclass(eq=False)
class Folder:
    """Names as programs see them, and those that were synced."""

    live: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)


@dataclass(eq=False)
class Change:
    """Names in one folder that are not synced yet: what they stand for from now on, None for nothing."""

    folder: Folder
    names: Mapping[str, File | Folder | None]
    after: Change | None = None  # happens only together with this one


class Model:
    """A folder as the disk may have it: `do` one recorded call after the other, then ask for the `disks`."""

    def __init__(self) -> None:
        self.top = Folder()
        self.pending: list[Change] = []

    def do(self, name: str, path: str, *rest: Any) -> None:
        getattr(self, f"_{name}")(path, *rest)

    def live(self) -> Disk:
        """What programs see."""
        return self._disk(self.top, lambda folder: folder.live, File.new)

    def lost(self) -> Disk:
        """What is there after a cut at this moment that took all that it could."""
        return self.cut(set(), File.old)

    def others(self, rng: random.Random, n: int | None = None) -> list[Disk]:
        """What else may be there: names without their bytes, bytes without their names, and some in between; or `n`."""
        every = set(self.pending)
        found: list[tuple[set[Change], Contents]] = [(set(), File.new)]
        found += [(every, contents) for contents in (File.old, File.zeros, File.torn, File.new)]
        for _ in range(SUBSETS):
            kept = {change for change in self.pending if rng.random() < 0.5}
            fates = [rng.choice((File.old, File.zeros, File.torn, File.new)) for _ in range(8)]
            found.append((kept, lambda file, fates=fates: fates[hash(file.live) % len(fates)](file)))
        return [self.cut(*one) for one in (found if n is None else rng.sample(found, n))]

    def cut(self, changes: set[Change], contents: Contents) -> Disk:
        """The disk when of all that was not synced just these names have survived, and these contents."""
        happened = [change for change in self.pending if change in changes or self._implied(change, changes)]

        def names(folder: Folder) -> Mapping[str, File | Folder]:
            found = dict(folder.synced)
            for change in happened:
                if change.folder is folder:
                    _set(found, change.names)
            return found

        return self._disk(self.top, names, contents)

    def _implied(self, change: Change, changes: set[Change]) -> bool:
        return any(other.after is change for other in changes)

    def _disk(self, folder: Folder, names: Callable[[Folder], Mapping[str, File | Folder]], contents: Contents) -> Disk:
        found: Disk = {}
        for name, node in names(folder).items():
            if isinstance(node, File):
                found[name] = contents(node)
            else:
                found[name] = None
                found.update({f"{name}/{key}": data for key, data in self._disk(node, names, contents).items()})
        return found

    def _at(self, path: str) -> tuple[Folder, str]:
        """(the folder that holds it, its name there)."""
        folder = self.top
        *above, name = path.split("/")
        for part in above:
            inner = folder.live[part]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, name

    def _node(self, path: str) -> File | Folder:
        folder, name = self._at(path)
        return folder.live[name] if name else folder

    def _change(self, folder: Folder, names: Mapping[str, File | Folder | None], after: Change | None = None) -> Change:
        change = Change(folder, names, after)
        _set(folder.live, names)
        self.pending.append(change)
        return change

    def _create(self, path: str) -> None:
        folder, name = self._at(path)
        self._change(folder, {name: File()})

    def _mkdir(self, path: str) -> None:
        folder, name = self._at(path)
        self._change(folder, {name: Folder()})

    def _remove(self, path: str) -> None:
        folder, name = self._at(path)
        self._change(folder, {name: None})

    def _rename(self, path: str, to: str) -> None:
        (folder, name), (target, new) = self._at(path), self._at(to)
        if folder is target:
            self._change(folder, {name: None, new: folder.live[name]})
        else:
            self._change(folder, {name: None}, after=self._change(target, {new: folder.live[name]}))

    def _write(self, path: str, offset: int, data: bytes) -> None:
        file = self._node(path)
        assert isinstance(file, File)
        file.live = file.live[:offset].ljust(offset, b"\0") + data + file.live[offset + len(data) :]

    def _truncate(self, path: str, size: int) -> None:
        file = self._node(path)
        assert isinstance(file, File)
        file.live = file.live[:size].ljust(size, b"\0")

    def _sync(self, path: str) -> None:
        node = self._node(path)
        if isinstance(node, File):
            node.synced = node.live
            return
        now = {change for change in self.pending if change.folder is node}
        now |= {change.after for change in now if change.after is not None}
        for change in self.pending:
            if change in now:
                _set(change.folder.synced, change.names)
        self.pending = [change for change in self.pending if change not in now]


def _set(names: dict[str, File | Folder], changed: Mapping[str, File | Folder | None]) -> None:
    for name, node in changed.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Recorder:
    """Hand it to `benchmarks.crash_runs.watched`: it makes every call, and notes what it did below `top`."""

    def __init__(self, top: Path) -> None:
        self._top = str(top.resolve())
        self.calls: list[tuple[Any, ...]] = []
        self.changes = 0  # how many calls change something

    def __call__(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        note = getattr(self, f"_{name}", None)
        if note is None:
            raise NotImplementedError(f"os.{name}{args}: the recorder does not know it")
        self.changes += changes(name, args, kwargs)
        return note(function, args, kwargs)

    def _note(self, what: str, path: str, *rest: Any) -> None:
        if path == self._top or path.startswith(f"{self._top}/"):
            self.calls.append((what, path[len(self._top) + 1 :], *rest))

    def _path(self, path: Any, folder: int | None = None) -> str:
        """Absolute; `path` may be a descriptor, or relative to one."""
        if isinstance(path, int):
            return str(Path(f"/proc/self/fd/{path}").readlink())
        base = Path() if folder is None else Path(f"/proc/self/fd/{folder}").readlink()
        return os.path.normpath(base.absolute() / os.fsdecode(path))

    def _open(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path, flags = self._path(args[0], kwargs.get("dir_fd")), int(kwargs.get("flags", (*args, 0)[1]))
        there = os.path.lexists(path)
        fd = function(*args, **kwargs)
        if flags & os.O_TMPFILE == os.O_TMPFILE:  # it never has a name
            return fd
        if flags & os.O_CREAT and not there:
            self._note("create", path)
        elif flags & os.O_TRUNC:
            self._note("truncate", path, 0)
        return fd

    def _write(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fd, data = args
        before = os.fstat(fd).st_size
        written = function(fd, data)
        # Where the bytes went: behind all others in a file opened to append, else where the descriptor stood.
        end = os.lseek(fd, 0, os.SEEK_CUR)
        offset = before if os.O_APPEND & int(_flags(fd), 8) else end - written
        self._note("write", self._path(fd), offset, bytes(data)[:written])
        return written

    def _pwrite(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fd, data, offset = args
        written = function(fd, data, offset)
        self._note("write", self._path(fd), offset, bytes(data)[:written])
        return written

    def _truncate(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        function(*args)
        self._note("truncate", self._path(args[0]), args[1])

    _ftruncate = _truncate

    def _fsync(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        function(*args)
        self._note("sync", self._path(args[0]))

    def _rename(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        paths = [self._path(path) for path in args]
        function(*args)
        self._note("rename", paths[0], paths[1][len(self._top) + 1 :])

    _replace = _rename

    def _mkdir(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        function(*args, **kwargs)
        self._note("mkdir", self._path(args[0], kwargs.get("dir_fd")))

    def _unlink(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self._path(args[0], kwargs.get("dir_fd"))
        function(*args, **kwargs)
        self._note("remove", path)

    _remove = _rmdir = _unlink


def _flags(fd: int) -> str:
    """The descriptor's flags, octal."""
    (line,) = (line for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines() if line.startswith("flags:"))
    return line.split()[1]


def on_disk(top: Path) -> Disk:
    """What is there."""
    found: Disk = {}
    for path in sorted(top.rglob("*")):
        found[path.relative_to(top).as_posix()] = path.read_bytes() if path.is_file() else None
    return found


def put_back(disk: Disk, top: Path) -> None:
    """Make a folder out of it. Only what differs from what is there is touched."""
    there = on_disk(top)
    for key in sorted(there.keys() - disk.keys(), reverse=True):
        if there[key] is None:
            (top / key).rmdir()
        else:
            (top / key).unlink()
    for key, data in sorted(disk.items()):
        if data is None:
            (top / key).mkdir(exist_ok=True)
        elif there.get(key) != data:
            (top / key).write_bytes(data)
