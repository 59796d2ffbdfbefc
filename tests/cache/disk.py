"""A disk that records every call that changes a folder, ends or fails at one of them, and may lose
its power.

A killed process loses nothing that the system has, so a kill shows nothing of a power cut. The
model of what one leaves is a harsh file system:

- Bytes survive when the file was synced after they were written. Otherwise they may be there, be
  missing, be zeros up to the file's new length, or be torn.
- A name that was made, changed or removed survives when its folder was synced afterwards. Otherwise
  each may have happened or not, whatever became of those before it.
- No file is lost by being renamed. From one folder to another, the old name may be there still
beside the new one.

Ext4, XFS and Btrfs promise more than this.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path
from typing import NamedTuple

Disk = dict[str, bytes | None]  # every file below the top with its bytes; every folder, with None
Contents = Callable[["File"], bytes]  # what a file holds after the cut

# The functions of module os that change files or folders, or make changes durable. Nothing in
# cache/ writes otherwise.
CALLS = (
    *(
        "open",
        "write",
        "pwrite",
        "writev",
        "pwritev",
        "truncate",
        "ftruncate",
        "fsync",
        "fdatasync",
    ),
    *("rename", "replace", "link", "symlink", "mkdir", "rmdir", "unlink", "remove"),
)


@dataclass(eq=False)
class File:
    """Bytes as programs see them, and those that were synced."""

    live: bytes = b""
    synced: bytes = b""

    def old(self):
        """Nothing new has survived."""
        return self.synced

    def new(self):
        """All has."""
        return self.live

    def zeros(self):
        """The new length has survived, the new bytes have not."""
        return self.synced[: len(self.live)].ljust(len(self.live), b"\0")

    def torn(self):
        """Half of what is new has survived."""
        pairs = enumerate(zip(self.live, self.synced, strict=False))
        same = next(
            (at for at, (one, other) in pairs if one != other),
            min(len(self.live), len(self.synced)),
        )
        end = same + (len(self.live) - same) // 2
        return self.live[:end] + self.synced[end:]


@dataclass(eq=False)
class Folder:
    """Names as programs see them, and those that were synced."""

    live: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)


@dataclass(eq=False)
class Change:
    """Names in one folder that are not synced yet: what they stand for from now on, None for
    nothing.
    """

    folder: Folder
    names: Mapping[str, File | Folder | None]
    after: Change | None = None  # happens only together with this one


class Model:
    """A folder as the disk may have it: `do` one recorded call after the other, then ask for the
    `disks`.
    """

    def __init__(self, disk=None):
        self.top = Folder()
        self.pending: list[Change] = []
        for path, data in sorted((disk or {}).items()):
            folder, name = self._at(path)
            folder.live[name] = folder.synced[name] = Folder() if data is None else File(data, data)

    def do(self, name, path, *rest):
        getattr(self, f"_{name}")(path, *rest)

    def after_cut(self, rng):
        """What may be there after a power cut at this moment: nothing that was not synced, all of
        it, or a part.
        """
        every, none = set(self.pending), set[Change]()
        kept = {change for change in self.pending if rng.random() < 0.5}
        fates = [rng.choice((File.old, File.zeros, File.torn, File.new)) for _ in range(8)]
        cuts = [
            *((none, File.old) for _ in range(4)),  # the harshest, most often
            (none, File.new),
            *((every, contents) for contents in (File.old, File.zeros, File.torn, File.new)),
            *((kept, lambda file: fates[hash(file.live) % len(fates)](file)) for _ in range(3)),
        ]
        return self.cut(*rng.choice(cuts))

    def lost(self):
        """What is there after a cut that took all that it could."""
        return self.cut(set(), File.old)

    def cut(self, changes, contents):
        """The disk when of all that was not synced just these names have survived, and these
        contents.
        """
        happened = [
            change for change in self.pending if change in changes or self._implied(change, changes)
        ]

        def names(folder):
            found = dict(folder.synced)
            for change in happened:
                if change.folder is folder:
                    _set(found, change.names)
            return found

        return self._disk(self.top, names, contents)

    def _implied(self, change, changes):
        return any(other.after is change for other in changes)

    def _disk(
        self,
        folder,
        names,
        contents,
    ):
        found = {}
        for name, node in names(folder).items():
            if isinstance(node, File):
                found[name] = contents(node)
            else:
                found[name] = None
                found.update(
                    {
                        f"{name}/{key}": data
                        for key, data in self._disk(node, names, contents).items()
                    }
                )
        return found

    def _at(self, path):
        """(the folder that holds it, its name there)."""
        folder = self.top
        *above, name = path.split("/")
        for part in above:
            inner = folder.live[part]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, name

    def _node(self, path):
        folder, name = self._at(path)
        return folder.live[name] if name else folder

    def _change(self, folder, names, after=None):
        change = Change(folder, names, after)
        _set(folder.live, names)
        self.pending.append(change)
        return change

    def _set(self, path, made):
        folder, name = self._at(path)
        self._change(folder, {name: made()})

    _create = partialmethod(_set, made=File)
    _mkdir = partialmethod(_set, made=Folder)
    _remove = partialmethod(_set, made=lambda: None)

    def _rename(self, path, to):
        (folder, name), (target, new) = self._at(path), self._at(to)
        if folder is target:
            self._change(folder, {name: None, new: folder.live[name]})
        else:
            self._change(folder, {name: None}, after=self._change(target, {new: folder.live[name]}))

    def _write(self, path, offset, data):
        file = self._node(path)
        assert isinstance(file, File)
        file.live = file.live[:offset].ljust(offset, b"\0") + data + file.live[offset + len(data) :]

    def _truncate(self, path, size):
        file = self._node(path)
        assert isinstance(file, File)
        file.live = file.live[:size].ljust(size, b"\0")

    def _sync(self, path):
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


def _set(names, changed):
    for name, node in changed.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it, and nothing that comes after it changes a file."""


class Interruption(NamedTuple):
    """What happens at the n-th change, from 1: the end of the process, or an error of the disk.

    EIO comes once, ENOSPC from then on but for what frees room, EROFS at every change from then on.
    Where it is a write, half of its bytes get to the file before an end, EIO or ENOSPC.
    """

    at: int
    code: int = 0  # of errno; 0: the process ends


NOTHING = Interruption(0)


@dataclass
class Watched:
    """Every call of `CALLS` below `top`: made, recorded in the model, and interrupted.

    `before_change`: called with the number of each change before it is made, as a reader beside the
    writer.
    """

    top: Path
    model: Model
    interruption: Interruption = NOTHING
    before_change: Callable[[int], None] = lambda _: None
    changes: int = 0  # calls so far that change something
    failed: bool = False
    # are the calls those of another process, which are neither counted nor interrupted?
    beside: bool = False

    def call(self, name, function, *args, **kwargs):
        if not self._is_below(self._path(args[0], kwargs.get("dir_fd"))) or not _changes(
            name, args, kwargs
        ):
            return function(*args, **kwargs)
        note = getattr(self, f"_{name}", None)
        if note is None:
            raise NotImplementedError(f"os.{name}{args}: the recorder does not know it")
        if self.beside:
            return note(function, args, kwargs)
        self.changes += 1
        self.before_change(self.changes)
        self._interrupt(name, note, function, args)
        return note(function, args, kwargs)

    def _interrupt(self, name, note, function, args):
        at, code = self.interruption
        if not at or self.changes < at:
            return
        lasting = code in (0, errno.EROFS) or (
            code == errno.ENOSPC and name not in ("unlink", "rmdir", "fsync")
        )
        if self.changes > at and not lasting:
            return
        if name == "write" and not self.failed and code != errno.EROFS:
            note(function, (args[0], bytes(args[1])[: len(args[1]) // 2]), {})
        self.failed = True
        if not code:
            raise Killed
        raise OSError(
            code, os.strerror(code), *([] if isinstance(args[0], int) else [os.fspath(args[0])])
        )

    def _is_below(self, path):
        return path == str(self.top) or path.startswith(f"{self.top}/")

    def _note(self, what, path, *rest):
        self.model.do(what, path[len(str(self.top)) + 1 :], *rest)

    def _path(self, path, folder=None):
        """Absolute; `path` may be a descriptor, or relative to one."""
        if isinstance(path, int):
            return str(Path(f"/proc/self/fd/{path}").readlink())
        base = Path() if folder is None else Path(f"/proc/self/fd/{folder}").readlink()
        return os.path.normpath(base.absolute() / os.fsdecode(path))

    def _open(self, function, args, kwargs):
        path, flags = (
            self._path(args[0], kwargs.get("dir_fd")),
            int(kwargs.get("flags", (*args, 0)[1])),
        )
        there = os.path.lexists(path)
        fd = function(*args, **kwargs)
        if flags & os.O_TMPFILE == os.O_TMPFILE:  # it never has a name
            return fd
        if flags & os.O_CREAT and not there:
            self._note("create", path)
        elif flags & os.O_TRUNC:
            self._note("truncate", path, 0)
        return fd

    def _write(self, function, args, kwargs):
        fd, data = args
        written = function(fd, data)
        end = os.lseek(fd, 0, os.SEEK_CUR)
        self._note("write", self._path(fd), end - written, bytes(data)[:written])
        return written

    def _pwrite(self, function, args, kwargs):
        fd, data, offset = args
        written = function(fd, data, offset)
        self._note("write", self._path(fd), offset, bytes(data)[:written])
        return written

    def _changed(self, function, args, kwargs, does):
        """A call of one path or descriptor, or of two paths."""
        paths = [
            self._path(path, kwargs.get("dir_fd"))
            for path in (args if does == "rename" else args[:1])
        ]
        function(*args, **kwargs)
        to = [path[len(str(self.top)) + 1 :] for path in paths[1:]]
        self._note(does, paths[0], *(args[1:] if does == "truncate" else to))

    _fsync = partialmethod(_changed, does="sync")
    _ftruncate = partialmethod(_changed, does="truncate")
    _replace = partialmethod(_changed, does="rename")
    _mkdir = partialmethod(_changed, does="mkdir")
    _unlink = _rmdir = partialmethod(_changed, does="remove")


@contextlib.contextmanager
def watching(watched):
    """Have every one of `CALLS` go through it."""

    def through(name, function):
        return lambda *args, **kwargs: watched.call(name, function, *args, **kwargs)

    functions = {name: getattr(os, name) for name in CALLS}
    try:
        for name, function in functions.items():
            setattr(os, name, through(name, function))
        yield watched
    finally:
        for name, function in functions.items():
            setattr(os, name, function)


def _changes(name, args, kwargs):
    """Whether a call changes anything: opening a file to read it does not."""
    return name != "open" or bool(
        kwargs.get("flags", args[1] if len(args) > 1 else 0) & (os.O_CREAT | os.O_TRUNC)
    )


def on_disk(top):
    """What is there."""
    found = {}
    for path in sorted(top.rglob("*")):
        found[path.relative_to(top).as_posix()] = path.read_bytes() if path.is_file() else None
    return found


def put_back(disk, top):
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
            (top / key).unlink(missing_ok=True)  # a snapshot may share it
            (top / key).write_bytes(data)
