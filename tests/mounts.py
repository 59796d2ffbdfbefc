"""Real mounts of Linux, where this user may mount; elsewhere the test is skipped."""

import contextlib
import subprocess

import pytest


@contextlib.contextmanager
def mounted(place, *words, remount=None):
    """`mount WORDS PLACE` within the block, mounted again with the options `remount`."""
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *words, place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user cannot mount here: {done.stderr.strip()}")
    try:
        if remount:
            subprocess.run(["mount", "-o", f"remount,{remount}", place], check=True)
        yield
    finally:
        subprocess.run(["umount", place], check=True)
