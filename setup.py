"""Build in a folder of its own: files of an earlier build in build/lib would get into the wheel."""

from tempfile import TemporaryDirectory

from setuptools import setup

with TemporaryDirectory() as folder:
    setup(options={"build": {"build_base": folder}})
