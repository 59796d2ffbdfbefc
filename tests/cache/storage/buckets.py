"""What tests of a cache in an object store have in common: commits to make, and what lies in the bucket then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import cache
from cache import SplitWriter, StreamWriter

SPLIT, STREAM = "toy/train", "resnet50"
LEFT = (".writing", ".commit", "provenance.json")  # of writers: outside the promise of equal bytes


Video = tuple[cache.VideoEntry, list[cache.TrackRows]]


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def name_and_prefix(url: str) -> tuple[str, str]:
    name, _, prefix = url.removeprefix("s3://").partition("/")
    return name, f"{prefix}/"


def objects(server: Any, url: str, *, every: bool = False) -> dict[str, bytes]:
    """Every object below the cache, those that are of writers only with `every`; read by another client than ours."""
    name, prefix = name_and_prefix(url)
    found = {}
    for page in server.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix):
        for entry in page.get("Contents", ()):
            key = entry["Key"].removeprefix(prefix)
            if every or not any(part in LEFT for part in key.split("/")):
                found[key] = server.get_object(Bucket=name, Key=entry["Key"])["Body"].read()
    return found


def put(server: Any, url: str, key: str, data: bytes) -> None:
    name, prefix = name_and_prefix(url)
    server.put_object(Bucket=name, Key=prefix + key, Body=data)


def delete(server: Any, url: str, key: str) -> None:
    name, prefix = name_and_prefix(url)
    server.delete_object(Bucket=name, Key=prefix + key)


def three_runs(root: Any, toy: Any) -> None:
    """A split and its stream; a second commit with dropped, replaced and new videos, whose stream carries rows over."""
    toy.write(root, toy.videos())
    toy.write_stream(root, bad_rows=[3, 40])
    again = [toy.video("b", [7, 20], seed=1), toy.video("g", [40])]
    toy.write(root, again, drop=["b", "a"], plan="second")
    with StreamWriter(root, SPLIT, STREAM, dim=4, plan="weights") as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            earlier = np.where(rows < 192, rows - 160 + 10, rows)  # what is appended has the keys of rows 10 to 42
            keys = toy.keys(earlier)
            mask, features, ok = writer.carried(keys)
            assert mask.any() == (shard == 5)
            own = toy.features(earlier, 4)
            np.testing.assert_array_equal(features[mask & (ok == 1)], own[mask & (ok == 1)])
            writer.write(shard, np.where(mask[:, None], features, own), np.where(mask, ok, 1), keys)
        writer.commit({"weights": "known"})


NARROW: Any = {"columns": ("bbox",), "rows_per_shard": 32, "rows_per_chunk": 8}


def narrow(video: Video) -> Video:
    """The same video with two columns: a commit takes some 60 requests instead of 150."""
    entry, tracks = video
    columns = ("frame_index", "bbox")
    return entry, [replace(track, columns={name: track.columns[name] for name in columns}) for track in tracks]


def two_commits(root: str, toy: Any) -> None:
    """A split and its stream, from wherever a killed run has left them."""
    with SplitWriter(root, SPLIT, plan="p", **NARROW) as writer:
        writer.begin()
        if not {*writer.committed_videos, *writer.journalled}:
            writer.append(*narrow(toy.video("a", [20, 30])))
        writer.commit({"n": 1})
    toy.write_stream(root)
