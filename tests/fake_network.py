"""A network that costs nothing."""

import numpy as np

from pipeline.features.streams.network import ResNet50


class FakeNetwork:
    """In place of ResNet-50: a row is 2048 means over parts of its crop. It keeps the sizes of its
    batches.
    """

    lanes = 1
    batches: list[int]

    def __init__(self, stream, machine):
        self.batch_size = machine.batch_size or 16
        self.provenance = {
            "weights": stream.weights.identity(),
            "sha256": "0" * 64,
            "stand_in": stream.stand_in,
        }

    def adopt(self, memory):
        self.memory = memory

    def release(self):
        del self.memory

    def __call__(self, crops):
        assert crops.shape == (self.batch_size, 224, 224, 3)
        assert np.shares_memory(crops, self.memory)
        self.batches.append(len(crops))
        pixels = crops.reshape(len(crops), -1)[:, : 73 * ResNet50.dim].astype(np.float32)
        means = pixels.reshape(len(crops), ResNet50.dim, 73).mean(axis=2) / 255
        return means


def replace_network(patch):
    patch.setattr(FakeNetwork, "batches", [], raising=False)
    patch.setattr(ResNet50, "load", lambda stream, machine, recorded: FakeNetwork(stream, machine))
    return FakeNetwork
