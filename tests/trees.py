"""What is in a folder, to compare with what is in it later, or in another one."""

from pathlib import Path

# Their bytes may differ where the promise of equal bytes holds.
OUTSIDE = {"provenance.json", "stamps.json", ".stamps.json.part"}


def contents(root):
    """Every file."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def tree(root):
    """Every file that the promise of equal bytes holds for."""
    found = ((Path(name), data) for name, data in contents(root).items())
    kept = (
        (path, data)
        for path, data in found
        if path.name not in OUTSIDE and ".writing" not in path.parts
    )
    return {path.as_posix(): data for path, data in kept}


def everything(root):
    """Inode and time of every file and folder: what shows that nothing at all was touched, besides
    the states of the last runs, which are also those of a run with nothing to do.
    """
    return {
        p.relative_to(root).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns)
        for p in sorted(root.rglob("*"))
        if not any(part.endswith(".state") for part in p.relative_to(root).parts)
    }
