"""The command that fills a committed stream's missing rows.  tracks -> [features] -> windows

Messages show it. It names the stream's recorded options, or the file that the stream was imported
from, so it does the same whatever luigi.cfg has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from cache import Split
from pipeline.cli.text import command, text_of
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.streams.base import Stream

BY_NAME: Final = ("weights", "precision")  # keys with an option of `extract`


def fill_command(split: Split, stream: str, *more: str) -> str:
    """The command that extracts or imports the stream with its recorded options. more: further
    options of `extract`.
    """
    manifest = split.stream_manifest(stream)
    imported = manifest.get("imported") or split.manifest.get("reader", {}).get("imported")
    if imported and imported["format"] != "bodies":  # streams of imported bodies are extracted
        return _import_command(split, stream, imported)
    options = _recorded_options(split, stream)
    words = ["extract", split.name, "--stream", stream, "--cache", str(split.root)]
    return command(*words, *options, *more)


def _recorded_options(split: Split, name: str) -> list[str]:
    """The options of `extract` for the recorded kind and options of a stream."""
    identity: Mapping[str, Any] = split.stream_manifest(name).get("identity", {})
    kind = identity.get("kind", name)
    words = [] if kind == name else ["--kind", str(kind)]
    stream = _recorded_stream(split, name, identity)
    if stream is None:
        return words
    for option in fields(stream):
        key = option.name
        value = getattr(stream, key)
        if value == option.default and key not in identity:
            continue
        if key in BY_NAME:
            words += [f"--{key}", text_of(value)]
        else:
            words += ["--set", f"{name}.{key}={text_of(value)}"]
    return words


def _recorded_stream(split: Split, name: str, identity: Mapping[str, Any]) -> Stream | None:
    """The stream of this identity, with the file of weights that provenance.json names; None if it
    cannot be made here.
    """
    weights = identity.get("weights")
    file = split.stream_provenance(name).get("weights_file")
    if file and isinstance(weights, Mapping):
        identity = {**identity, "weights": {"kind": weights["kind"], "argument": file}}
    try:
        return streams.of_identity(identity)
    except PipelineError:  # its package is not installed
        return None


def _import_command(split: Split, stream: str, imported: Mapping[str, Any]) -> str:
    """The command that imports a stream again, from the file that provenance.json names."""
    provenance = split.provenance
    options = list[str]()
    if imported["format"] == "arrays":
        provenance = split.stream_provenance(stream)
        options += ["--array", imported["array"]]
    else:
        options += ["--crop-scale", str(imported["crop_scale"])]
    file = str(provenance.get("imported", imported["file"]))
    words = ["import", file, *split.name.split("/"), "--format", imported["format"]]
    return command(*words, "--as", stream, *options, "--cache", str(split.root))
