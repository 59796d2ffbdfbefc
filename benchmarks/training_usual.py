"""VIBE's training step the usual way, which benchmarks/training.py compares with.

Databases of whole datasets in memory; loaders of 2D, of 3D and of real motion, whose items are one window of eight
arrays each, converted when it is asked for; torch's own GRU; every vertex of the body; the discriminator forwards three
times, with gradients of all that takes part; Adam, one parameter after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from training_data import SKELETON, STREAM

from cache import Split
from pipeline.body import Body
from pipeline.crops import normalise_keypoints
from pipeline.skeletons import JOINTS, convert
from vibe_model import TrainConfig, losses
from vibe_model.cameras import project
from vibe_model.rotations import matrix_to_axis_angle, rotation_6d_to_matrix

Arrays = dict[str, NDArray[Any]]
Windows = Sequence[Sequence[int]]  # first rows of the windows of each step


class Database(Dataset[Arrays]):
    """All of a split in memory, float32, as its file had it; item `start` is the window that begins in that row."""

    def __init__(self, split: Split, seqlen: int) -> None:
        self._seqlen = seqlen
        stop = max(track.stop for track in split.tracks)
        self._rows = {name: split.rows(name, 0, stop) for name in split.columns}
        if STREAM in split.streams:
            self._rows["features"] = split.rows(f"features/{STREAM}", 0, stop).astype(np.float32)
            own = [JOINTS["spin49"].index(name) for name in JOINTS[SKELETON]]
            self._rows["joints2D"] = self._rows["kp_2d"][:, own]

    def __getitem__(self, start: int) -> Arrays:
        rows = {name: array[start : start + self._seqlen] for name, array in self._rows.items()}
        item = {
            "features": rows.get("features", np.zeros((self._seqlen, 0), np.float32)),
            "kp_2d": np.zeros((self._seqlen, 49, 3), np.float32),
            "kp_3d": np.zeros((self._seqlen, 49, 3), np.float32),
            "theta": np.zeros((self._seqlen, 85), np.float32),
            **{name: np.zeros(self._seqlen, np.float32) for name in ("w_3d", "w_smpl", "valid")},
            "frame_index": rows["frame_index"].astype(np.int64),
        }
        item["theta"][:, 0] = 1
        for t in range(self._seqlen):
            if "joints2D" in rows:
                joints = convert(rows["joints2D"][t], source=SKELETON, target="spin49")
                item["kp_2d"][t] = normalise_keypoints(joints, rows["bbox"][t])
            if "pose" in rows:
                item["theta"][t, 3:75], item["theta"][t, 75:] = rows["pose"][t], rows["betas"][t]
                item["w_smpl"][t] = rows["has_smpl"][t]
            if "kp_3d" in rows:
                item["kp_3d"][t], item["w_3d"][t] = rows["kp_3d"][t, :, :3], rows["has_3d"][t]
                item["valid"][t] = rows["valid"][t]
        return item


def loader(database: Database, windows: Windows, workers: int) -> Iterator[dict[str, Tensor]]:
    """Batches of these windows, in this order."""
    return iter(DataLoader(database, batch_sampler=windows, num_workers=workers))  # type: ignore[arg-type]


class Generator(nn.Module):
    """VIBE by the paper, with the names of its checkpoints."""

    def __init__(self, config: TrainConfig, body: Body) -> None:
        super().__init__()
        size, width = config.feature_size, config.regressor_size
        gru = nn.GRU(size, config.hidden_size, config.n_layers, batch_first=True)
        self.encoder = nn.ModuleDict({"gru": gru, "linear": nn.Linear(config.hidden_size, size)})
        layers = {"fc1": nn.Linear(size + 157, width), "drop1": nn.Dropout()}
        layers |= {"fc2": nn.Linear(width, width), "drop2": nn.Dropout()}
        layers |= {f"dec{name}": nn.Linear(width, n_out) for name, n_out in (("pose", 144), ("shape", 10), ("cam", 3))}
        self.regressor = nn.ModuleDict(layers)
        for name, mean in (("pose", body.mean_pose), ("shape", body.mean_shape), ("cam", body.mean_cam)):
            self.regressor.register_buffer(f"init_{name}", mean[None].clone())
        self.body = body

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        n_windows, n_frames = features.shape[:2]
        encoded = features + self.encoder["linear"](torch.relu(self.encoder["gru"](features)[0]))
        net, x = self.regressor, encoded.reshape(n_windows * n_frames, -1)
        pose, shape, camera = (getattr(net, f"init_{name}").expand(len(x), -1) for name in ("pose", "shape", "cam"))
        for _ in range(3):
            state = torch.cat([x, pose, shape, camera], dim=1)
            state = net["drop2"](net["fc2"](net["drop1"](net["fc1"](state))))
            pose, shape = pose + net["decpose"](state), shape + net["decshape"](state)
            camera = camera + net["deccam"](state)
        rotmat = rotation_6d_to_matrix(pose.reshape(-1, 24, 6))
        verts, joints = self.body(betas=shape, rotmat=rotmat)
        theta = torch.cat([camera, matrix_to_axis_angle(rotmat).flatten(1), shape], dim=1)
        out = {"theta": theta, "verts": verts, "kp_2d": project(joints, camera), "kp_3d": joints, "rotmat": rotmat}
        return {name: value.reshape(n_windows, n_frames, *value.shape[1:]) for name, value in out.items()}


class Discriminator(nn.Module):
    """The motion discriminator with self-attention."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        size = config.disc_size
        self.gru = nn.GRU(69, size, config.disc_layers, batch_first=True)
        layers: list[nn.Module] = []
        for number in range(config.attention_layers):
            n_out = 1 if number == config.attention_layers - 1 else size
            layers += [nn.Linear(size, n_out), nn.Tanh(), nn.Dropout(config.attention_dropout)]
        self.attention = nn.ModuleDict({"attention": nn.Sequential(*layers)})
        self.fc = nn.Linear(size, 1)

    def forward(self, motion: Tensor) -> Tensor:
        states = self.gru(motion)[0]
        weights = torch.softmax(self.attention["attention"](states), dim=1)
        score: Tensor = self.fc((weights * states).sum(1))
        return score


class UsualTrainer:
    """Both networks and their optimisers."""

    def __init__(self, config: TrainConfig, body: Body, device: torch.device) -> None:
        self._weights, self._device = config.weights, device
        self.generator, self.discriminator = Generator(config, body).to(device), Discriminator(config).to(device)
        plain: Any = {"foreach": False, "fused": False}
        self._gen_optimizer = torch.optim.Adam(self.generator.parameters(), config.lr_generator, **plain)
        self._disc_optimizer = torch.optim.Adam(
            self.discriminator.parameters(),
            config.lr_discriminator,
            weight_decay=config.weight_decay_discriminator,
            **plain,
        )

    def train_step(
        self, batch_2d: Mapping[str, Tensor], batch_3d: Mapping[str, Tensor], real: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """One step. Returns the weighted terms."""
        batch = {name: torch.cat([batch_2d[name], batch_3d[name]]).to(self._device) for name in batch_2d}
        batch["w_3d"][: len(batch_2d["w_3d"])] = batch["w_smpl"][: len(batch_2d["w_smpl"])] = 0
        pred = self.generator(batch["features"])
        fake, genuine = pred["theta"][..., 6:75], real["theta"].to(self._device)[..., 6:75]
        terms = losses.generator_losses(pred, batch, self._weights)
        terms["adversarial"] = self._weights["adversarial"] * losses.adversarial_generator(self.discriminator(fake))
        real_scores, fake_scores = self.discriminator(genuine), self.discriminator(fake.detach())
        sides = losses.discriminator_terms(real_scores, fake_scores)
        self._gen_optimizer.zero_grad()
        sum(terms.values(), torch.zeros((), device=self._device)).backward()  # type: ignore[no-untyped-call]
        self._gen_optimizer.step()
        terms |= {
            f"discriminator_{n}": self._weights["discriminator"] * side
            for n, side in zip(("real", "fake"), sides, strict=True)
        }
        self._disc_optimizer.zero_grad()
        (terms["discriminator_real"] + terms["discriminator_fake"]).backward()  # type: ignore[no-untyped-call]
        self._disc_optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}
