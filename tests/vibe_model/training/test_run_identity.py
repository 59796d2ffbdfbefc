"""What decides whether two trainings are one run, and what a run lacks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic.dataclasses import dataclass

from pipeline.errors import DataError
from tests.vibe_model.builders import MemorySplit
from vibe_model import runs
from vibe_model.training import video as training


@pytest.fixture(params=["vibe", "prior"])
def kind(request):
    return request.param


only_vibe = pytest.mark.parametrize("kind", ["vibe"])
NEUTRAL = {"name": "x", "runs": Path("x"), "cache": Path("x"), "checkpoint_every": 7}
OF_VIBE = {"hold": "ram", "read_workers": 1, "processes": 2}
OTHER = {
    "vibe": {"seed": 1, "lr_generator": 1.0, "stream": "other", "stride": 3, "epochs": 9, "evaluation": ()}
    | {"threads": 2, "tail": "cover", "window_weights": {"m/train": 2.0}},
    "prior": {"seed": 1, "kl_weight": 1.0, "latent_size": 4, "seqlen": 5, "validation": (), "strides": {"m/train": 3}},
}  # fmt: skip


def test_the_fingerprint_covers_what_changes_numbers_and_nothing_else(kind, config, splits):
    name = runs.fingerprint(config, splits)
    for setting, value in (NEUTRAL | (OF_VIBE if kind == "vibe" else {})).items():
        assert runs.fingerprint(replace(config, **{setting: value}), splits) == name
    names = {runs.fingerprint(replace(config, **{s: v}), splits) for s, v in OTHER[kind].items()}
    assert len(names | {name}) == len(OTHER[kind]) + 1
    assert runs.fingerprint(config, splits | {"m/train": MemorySplit(9, [12, 8])}) != name


def later(kind, default):
    """The settings of a later version, with a loss of weight 0 for earlier runs."""

    @dataclass(frozen=True, kw_only=True)
    class Later(kind):
        ADDED: ClassVar[Mapping[str, Any]] = {**kind.ADDED, "bone_weight": 0.0}
        bone_weight: float = default

    return Later


def test_a_changed_default_of_a_later_setting_renames_no_earlier_run(kind, config, splits):
    name = runs.fingerprint(config, splits)
    settings = config.as_dict()
    for default in (0.0, 2.0):
        version = later(type(config), default)
        assert runs.fingerprint(version(**settings, bone_weight=0.0), splits) == name
        assert version.from_dict(settings).bone_weight == 0.0
        by_default = runs.fingerprint(version(**settings), splits)
        assert (by_default == name) == (default == 0.0)
    stated = later(type(config), 0.0)(**settings, bone_weight=2.0)
    assert runs.fingerprint(stated, splits) == by_default


@only_vibe
def test_the_fingerprint_covers_the_content_of_body_and_checkpoint(config, splits, tmp_path):
    names = set()
    for content in (b"one", b"other"):
        folder = tmp_path / content.decode()
        (folder / "body").mkdir(parents=True)
        for setting, file in (
            ("body", folder / "body/SMPL_NEUTRAL.npz"),
            ("pretrained", folder / "start.pt"),
        ):
            file.write_bytes(content)
            given = file.parent if setting == "body" else file
            names.add(runs.fingerprint(replace(config, **{setting: given}), splits))
    assert len(names) == 4
    body = tmp_path / "one/body"
    of_body = replace(config, body=body)
    (body / "README.txt").write_bytes(b"not read")
    assert runs.fingerprint(of_body, splits) in names
    for file in ("J_regressor_extra.npy", "J_regressor_h36m.npy", "smpl_mean_params.npz"):
        (body / file).write_bytes(b"read")
        names.add(runs.fingerprint(of_body, splits))
    assert len(names) == 7
    (tmp_path / "copy").write_bytes(b"one")
    assert runs.fingerprint(replace(config, pretrained=tmp_path / "copy"), splits) in names


def test_what_is_missing_is_named(mixed, of_windows, tmp_path):
    lacking = replace(
        mixed, cache=of_windows, datasets_2d=(), evaluation=("x/val", "m/train"), stream="other"
    )
    streams = [f"{name}/features/other" for name in ("a/train", "b/train", "m/train")]
    assert not runs.is_complete(lacking)
    with pytest.raises(
        DataError, match=rf"expected x/val, {', '.join(streams)}, .* name others in the settings"
    ):
        training.run(lacking)
    nowhere = replace(lacking, cache=tmp_path / "none")
    assert not runs.is_complete(nowhere)
