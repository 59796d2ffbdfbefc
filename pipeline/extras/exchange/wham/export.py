"""A split as a file of WHAM's `dataset/parsed_data`.  tracks, features -> [files of other programs]

In comes a split of the cache, with its streams of features and contacts and, for some fields,
SMPL's files. Out goes the one file that WHAM expects for this split (`layouts`), which its code
loads with joblib. WHAM cuts its windows from all rows with one `vid`, so each segment of
consecutive frames has a number of its own. Fields that cannot be written are reported.

Shin et al.: WHAM: Reconstructing World-Grounded Humans with Accurate 3D Motion, CVPR 2024.
lib/data_utils/ writes these files, lib/data/datasets/ reads them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass as validated

import cache
from pipeline import datasets
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.extras.exchange.formats import Exported, publish_with_provenance, require_new_file
from pipeline.extras.exchange.pickled_arrays import write_joblib
from pipeline.extras.exchange.rows import origin_of, recorded_stream
from pipeline.extras.exchange.wham.layouts import LAYOUTS, USUAL, FileContent
from pipeline.extras.streams.world import Stationary


@validated(frozen=True, config={"extra": "forbid"})
class WhamOptions:
    """Options: `body`, the folder of SMPL's files and J_regressor_wham.npy; `stationary`, the
    stream of contacts.
    """

    body: Path | None = None
    stationary: str = Stationary.kind


def export(
    root: cache.Root,
    name: str,
    out: Path,
    *,
    stream: str = USUAL,
    progress: Progress = silent,
    options: WhamOptions = WhamOptions(),  # noqa: B008  it is frozen
) -> Exported:
    """Write the split `name` in the cache `root` to the file `out`, or into the folder `out` under
    WHAM's name; and where it comes from to `<file>.provenance.json`. stream: of kind hmr2.

    Raises:
        cache.CacheError: the split is missing.
        PipelineError: WHAM has no file for the split; the stream is missing or out of date; no row
            can be exported; the file exists.
        StandInMixed: body and split are not both real or both demo data.
        MissingAssets: files are missing in the body's folder.
    """
    if name not in LAYOUTS:
        raise PipelineError(
            f"{name}: WHAM has no file for this split. Choose one of {', '.join(LAYOUTS)}."
        )
    layout = LAYOUTS[name]
    split = cache.open(root)[name]
    file = out
    if out.is_dir():
        file = out / layout.file
    if file.suffix != ".pth":
        raise PipelineError(
            f"--out {file}: WHAM's files have the suffix .pth. Name it {layout.file}."
        )
    require_new_file(file)
    content = layout.content(split, stream, options.stationary, options.body, progress)
    provenance = _provenance(split, content)
    write = functools.partial(write_joblib, entries=content.entries, tensors=layout.as_tensors)
    publish_with_provenance(file, write, provenance)
    summary = f"{count(content.n_rows, 'row')} in {count(content.n_sequences, 'sequence')}"
    stand_in = provenance["stand_in"]
    return Exported(file, content.n_rows, summary, content.absent, content.left_out, stand_in)


def _provenance(split: cache.Split, content: FileContent) -> dict[str, Any]:
    """What the file has and where it comes from, for `<file>.provenance.json`."""
    dataset = datasets.get(split.name.partition("/")[0])
    return {
        **origin_of(split, *content.streams),
        "format": "wham",
        "streams": {stream: recorded_stream(split, stream) for stream in content.streams},
        "body": content.body,
        "kp2d": f"of the dataset: {dataset.labels.keypoints_from}",
        "fields": sorted(content.entries),
        "rows": content.n_rows,
        "left_out": dict(content.left_out),
        "absent": content.absent,
    }
