"""Check entries and names of manifests, which may come from anywhere.  [cache]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cache.format import layout

_KIND: Final = {"split": ("rows", "tracks"), "stream": ("stream", "dim", "dtype", "rows"), "tag": ("splits",)}
_COMMIT: Final = ("extent", "commits", "geometry", "shards")  # entries of the manifests of splits and streams


def problem_of(manifest: Mapping[str, Any], kind: str, stream: str | None) -> str:
    """Why a manifest cannot be that of a split, a tag or this stream (`kind`, `stream`); "" if it can."""
    entries = (*_KIND[kind], "files", *(() if kind == "tag" else _COMMIT))
    if missing := [name for name in entries if name not in manifest]:
        return f"no {missing[0]!r}"
    if manifest.get("stream") != stream:
        return f"that of stream {manifest['stream']!r}" if "stream" in manifest else "that of a split"
    names = [
        *manifest["files"],
        *(f"{name}/c/{shard}" for name, of in manifest.get("shards", {}).items() for shard in of),
    ]
    if strange := [name for name in names if not _is_inside(name)]:
        return f"the name {strange[0]!r}"
    for split, state in manifest.get("splits", {}).items():
        if not layout.is_split_name(split) or not all(map(layout.is_name, state["streams"])):
            return f"the name {split!r}, or one of its streams"
    return ""


def _is_inside(name: str) -> bool:
    """Whether the name of a small file or a shard is <array>/zarr.json or <array>/c/<number>..., of one array."""
    array, *path = name.split("/")
    is_chunk = len(path) > 1 and path[0] == "c" and all(part.isdecimal() for part in path[1:])
    return layout.is_name(array) and (path == ["zarr.json"] or is_chunk)
