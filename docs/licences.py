"""Writes the table of packages into docs/licences.md, from what is installed: `.venv/bin/python docs/licences.py`.

Where it stands: beside raw -> tracks -> features -> windows -> training -> evaluation -> report; nothing imports it but
its test, tests/test_licences.py.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "licences.md"
BEGIN: Final = "<!-- made by docs/licences.py: from here on -->\n"
END: Final = "<!-- made by docs/licences.py: up to here -->\n"
RUN: Final = "run"  # what is always installed

# How metadata say it -> one spelling. What is no key stands as it is (it is SPDX's own, mostly).
SPELLINGS: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD",
    "GNU General Public License (GPL)": "GPL",
    "LicenseRef-NVIDIA-Proprietary": "NVIDIA",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "NVIDIA Proprietary Software": "NVIDIA",
    "Other/Proprietary License": "proprietary",
    "Python Software Foundation License": "PSF-2.0",
}
PERMISSIVE: Final = frozenset(
    {"0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0"}
    | {"MIT-CMU", "PSF-2.0", "Public Domain", "Zlib"}
)

BY_HAND: Final = {  # their metadata say nothing
    "cuda-toolkit": "NVIDIA",  # a package without files: it names NVIDIA's others
    "smplx": "non-commercial",  # the file LICENSE in its wheel
}


@dataclass(frozen=True, slots=True)
class Package:
    """A row of the table."""

    name: str
    uses: str  # what it is for: run, or extras
    of: str  # the package that asks for it; empty: pyproject.toml does
    licence: str

    @property
    def permissive(self) -> bool:
        """Whether all of it may be used under a licence without conditions on the work that uses it.

        >>> Package("a", "run", "", "MIT AND GPL").permissive, Package("a", "run", "", "MIT OR GPL").permissive
        (False, True)
        """
        choices = self.licence.split(" OR ")
        return any({*re.split(r" AND |, ", one.strip("()"))} <= PERMISSIVE for one in choices)


ELSEWHERE: Final = (  # what other environments have than the one in which the table is made
    Package("dask-jobqueue", "cluster", "", "BSD-3-Clause"),
    Package("msgspec", RUN, "zarr", "BSD-3-Clause"),  # from zarr 3.2 on, which wants Python 3.12
)


def named() -> dict[str, list[str]]:
    """What pyproject.toml names: run, and each extra -> requirements."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {RUN: project["dependencies"], **project["optional-dependencies"]}


def licence_of(found: Distribution) -> str:
    """A package's licence as its metadata state it: by expression, else in a word, else by classifiers."""
    metadata = found.metadata
    if (name := canonicalize_name(metadata["Name"])) in BY_HAND:
        return BY_HAND[name]
    words = [*(metadata.get_all("License-Expression") or ()), *(metadata.get_all("License") or ()), ""]
    word = words[0].strip()
    classifiers = [text.split(" :: ")[-1] for text in metadata.get_all("Classifier") or [] if "License ::" in text]
    title = word.partition("\n")[0].strip()  # of a whole text
    vague = title not in SPELLINGS and (title != word or word in ("", "UNKNOWN", "Dual License"))
    told = classifiers if vague else [title]
    return ", ".join(dict.fromkeys(SPELLINGS.get(text, text) for text in told)) or "not stated"


def packages() -> list[Package]:
    """Everything that this project installs, by name: what pyproject.toml names, and what that needs in turn."""
    found: dict[str, Package] = {}
    for use, requirements in named().items():
        for name, (of, licence) in _closure(requirements).items():
            before = found.get(name, Package(name, "", of, licence))
            uses = f"{before.uses}, {use}".removeprefix(", ")
            found[name] = replace(before, uses=RUN if RUN in uses else uses, of="" if not of else before.of)
    for package in ELSEWHERE:
        found.setdefault(package.name, package)
    return [found[name] for name in sorted(found)]


def _closure(requirements: list[str]) -> dict[str, tuple[str, str]]:
    """Name -> (the package that asks for it, its licence), of all that is installed for these requirements."""
    found: dict[str, tuple[str, str]] = {}
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, of = waiting.pop(0)
        name = canonicalize_name(requirement.name)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        if name not in found or requirement.extras:
            found.setdefault(name, (of, licence_of(installed)))
            waiting += [(needed, name) for needed in _needed(installed, requirement.extras)]
    return found


def _needed(installed: Distribution, extras: set[str]) -> Iterator[Requirement]:
    """What a package needs here, with these of its own extras."""
    for requirement in map(Requirement, installed.requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def table(rows: list[Package]) -> str:
    """Markdown."""
    lines = ["| package | for | licence |", "|---|---|---|"]
    for row in rows:
        asked = f", of {row.of}" if row.of else ""
        lines.append(f"| {row.name} | {row.uses}{asked} | {row.licence} |")
    return "\n".join(lines) + "\n"


def told(text: str) -> Mapping[str, str]:
    """The table of the page: package -> licence."""
    rows = [line.strip("|").split("|") for line in text.partition(BEGIN)[2].partition(END)[0].splitlines()]
    return {row[0].strip(): row[2].strip() for row in rows[3:] if len(row) == 3}


def main() -> None:
    """Put the table of what is installed into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(packages())}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
