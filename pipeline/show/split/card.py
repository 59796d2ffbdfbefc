"""The card of data for others: a page in Markdown.  rows -> [card]"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import cache
from cache.format.layout import COLUMNS, Column
from pipeline.features.committed import weights_of
from pipeline.people.estimates import estimates_of
from pipeline.processes.software import package_version
from pipeline.show.page import templates
from pipeline.steps import sharing

CARD: Final = "README.md"


def card(
    splits: Sequence[cache.Split],
    streams: Collection[str] | None = None,
    *,
    files: Mapping[str, str] | None = None,
    public: bool = False,
) -> str:
    """Write about splits: size, columns, licences, and how they were made.

    Args:
        streams: streams whose features go along; None: all.
        files: for a hub's folder of Parquet files: name of a split there -> its folder, with a
            slash at the end.
        public: leave out `sharing.private_lines`, and raise what they raise.
    """
    licences = sharing.licences_of(splits)
    columns: dict[str, Column] = {}
    features, readers = {}, {}
    for split in splits:
        clean = sharing.text_cleaner(split)
        readers[split.name] = clean(split.manifest.get("reader"))
        specs = {**COLUMNS, **split.extra}
        columns |= {name: specs[name] for name in (*split.columns, *split.extra)}
        for stream in split.streams if streams is None else streams:
            form = split.open_stream(stream).form
            features[stream] = clean({"dim": form.dim, **weights_of(split, stream)})
    template = templates("copy").get_template("card.md")
    text = template.render(
        splits=splits,
        columns=columns,
        features=features,
        licences=licences,
        is_demo={*licences.values()} == {sharing.DEMO},
        private=sharing.private_lines(licences, public=public),
        readers=readers,
        estimates_of=estimates_of,
        files=files,
        version=package_version(),
    )
    # escaped for attributes, of which there are none
    return text.replace("&#39;", "'").replace("&#34;", '"')
