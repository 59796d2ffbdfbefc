"""Files that runs and predictions leave."""

import json

import torch


def read_file(file):
    """The content of a checkpoint, else of a JSON file."""
    if file.suffix == ".pt":
        return torch.load(file, weights_only=True)
    return json.loads(file.read_text())
