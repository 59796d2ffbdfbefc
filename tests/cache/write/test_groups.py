"""Who may read and write what a member of a group has written into a cache: other members of the
group if it may write into the cache's folder, and others as far as the umask allows.
"""

import encodings.cp437  # noqa: F401  zipfile's: another user may not be able to read it
import os
import shutil
import stat
import tempfile
from functools import partial
from pathlib import Path

import pytest

import cache
from tests.cache import toy
from tests.cache.users import OTHER, as_another_user

SPLIT = "toy/train"
GROUP = 60001 if os.geteuid() == 0 else os.getegid()
FOLDER, FILE = 0o770, 0o660  # of a member whose umask is 077


@pytest.fixture(autouse=True)
def umask():
    """Set the umask of this process during a test."""
    before = os.umask(0o077)
    yield os.umask
    os.umask(before)


@pytest.fixture
def lab():
    """A folder that a group may write, such as an operator makes it, outside of pytest's own."""
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, -1, GROUP)
    folder.chmod(0o2770)
    yield folder
    shutil.rmtree(folder)


def modes(folder):
    """The permissions of all folders, and of all files, below a folder."""
    found = {True: set(), False: set()}
    for path in folder.rglob("*"):
        found[path.is_dir()].add(stat.S_IMODE(path.stat().st_mode) & 0o777)
    return found[True], found[False]


def use(root):
    """All that writes into a cache."""
    toy.write(root, toy.videos())
    toy.write(root, [*toy.videos(), toy.video("z", 40)], plan="next")
    toy.write_stream(root)
    cache.tag(root, "before")
    toy.unfinished(root, [toy.video("y", 9)])
    toy.write_stream(root, stream="other")
    cache.delete_stream(root, SPLIT, "other")
    cache.gc(root, unused_for=9e9)


def go_on(root):
    toy.write(root, [*toy.videos(), toy.video("new", 9)], plan="of another member")
    toy.write_stream(root)
    cache.gc(root, unfinished=True)
    report = cache.verify(root)
    assert (report.problems, report.notes) == ((), [])


@pytest.mark.promise("users")
@pytest.mark.parametrize(
    ("mask", "folders", "files"),
    [(0o077, FOLDER, FILE), (0o027, FOLDER, FILE), (0o022, 0o775, 0o664)],
)
def test_a_group_s_cache_is_its_group_s_whatever_the_umask_of_a_member(
    mask, folders, files, lab, umask
):
    umask(mask)
    use(lab)
    assert modes(lab) == ({folders}, {files})
    assert as_another_user(lambda: go_on(lab), [GROUP]) == ""
    assert modes(lab) == ({folders}, {files})


@pytest.mark.parametrize("mode", [0o755, 0o2750])
def test_where_the_group_may_not_write_the_umask_decides(mode, lab, umask):
    lab.chmod(0o755)  # such as a home
    use(lab / "new")
    assert modes(lab) == ({0o700}, {0o600})
    lab.chmod(mode)
    use(lab)
    assert modes(lab) == ({0o700}, {0o600})
    umask(0o022)
    use(lab / "another")
    assert modes(lab / "another") == ({0o755}, {0o644})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second group")
def test_files_of_another_group_than_the_folder_s_stay_as_they_are(lab):
    os.chown(lab, -1, OTHER)
    lab.chmod(0o770)  # without g+s, files have the group of the one who writes them
    use(lab)
    assert modes(lab) == ({0o700}, {0o600})


def test_a_second_member_is_refused_with_the_first_one_s_name(lab):
    with toy.writer(lab, "plan"):
        refused = as_another_user(lambda: go_on(lab), [GROUP])
    assert refused.startswith("Busy: ") and f"process {os.getpid()} writing" in refused
    toy.write(lab, toy.videos())
    assert as_another_user(lambda: go_on(lab), [GROUP]) == ""


def test_another_member_goes_on_wherever_a_run_was_killed(lab):
    """Killed before every eleventh file that gets its final name."""

    def use_until(n_files):
        replace = os.replace
        names = iter(range(n_files))

        def replace_or_die(*args):
            if next(names, None) is None:
                os._exit(9)
            replace(*args)

        os.replace = replace_or_die
        use(lab)
        raise AssertionError("done")

    n_files = 0
    as_lab = [GROUP]
    while not as_another_user(partial(use_until, n_files), as_lab, user=OTHER - 1):
        assert as_another_user(lambda: go_on(lab), as_lab) == "", n_files
        for path in lab.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        n_files += 11
    assert n_files > 70
