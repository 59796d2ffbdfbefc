"""How fast are features extracted? Against the usual way, and against what decoding and the network allow, in one run.

    .venv/bin/python benchmarks/features.py --out benchmarks/features.md

Pictures and videos of noise on all scales, whose files are as large as photographs', and a split of persons in them in
a cache. In every case, round after round, each in a process of its own:

- usual (`features_usual.py`): person by person cv2.imread (of a video: the video once more), crop, normalisation in
  NumPy in one thread, and torchvision's ResNet-50 in fp32 in batches of 200, torch with its own number of threads. Its
  first `--usual` crops are timed, without start-up.
- ours (`pipeline.features.extract.extract`, precision fast): `--frames` crops. Its rate is that of the rows from 20% to
  80%, where nothing starts and nothing ends any more; what the whole process took beyond that rate is told beside it:
  the interpreter, torch, loading the network, starting processes, filling and emptying buffers, the last commit.
- the limits (`features_limits.py`): the same decoding processes without a network on the same split, and
  the same network without decoding.

Together these two allow 1 / (1/decode + 1/network) crops a second on a CPU, whose cores they share, and the smaller of
both on a GPU. Agreement of precision fast with exact, and of exact with torchvision's layers, is measured over all
crops of the first case; memory over two lengths, with a stream that costs nothing to compute.

Every picture lies in the page cache. The network's weights are random, in a checkpoint file, unless `--weights` names
others: rates do not depend on them, agreement does.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

from features_measured import CROPPED, PIXELS, Options, agreement, memory, random_weights, speed, store_crops
from features_report import report

from pipeline.features.networks import chosen_device


def main() -> None:
    """Make the data, measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=PIXELS, default=list(PIXELS))
    parser.add_argument("--frames", type=int, default=1600, help="crops a case; on a GPU take 40000")
    parser.add_argument("--usual", type=int, default=400, help="crops that the usual way computes of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each limit")
    parser.add_argument(
        "--memory", nargs="*", type=int, default=[1_000, 40_000, 100_000], help="frames; none: not measured"
    )
    parser.add_argument("--weights", help="as of `extract`; by default random ones")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0, help="decoding processes; 0: one a core")
    parser.add_argument("--compile", action="store_true", help="torch.compile, on CUDA")
    parser.add_argument(
        "--at",
        type=Path,
        help="where to make the files (1 GB; with 40000 crops a case 6); a temporary folder by default",
    )
    parser.add_argument("--out", type=Path, help="write the report here, for example benchmarks/features.md")
    args = parser.parse_args()
    device = str(chosen_device(args.device))
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        work = Path(folder)
        weights = args.weights or random_weights(work)
        options = Options(
            work, weights, device, args.workers, args.compile, args.frames, args.usual, args.rounds, args.seconds
        )
        if CROPPED in args.cases:
            store_crops(options)
        measured = []
        for key in args.cases:
            measured.append(speed(options, key))
            print(PIXELS[key], [round(rate, 1) for rate in measured[-1].rates("ours")], "crops a second", flush=True)
        agreed = agreement(options, args.cases)
        # What torch itself takes is no part of it.
        held = memory(dataclasses.replace(options, device="cpu"), args.memory) if args.memory else []
    text = report(measured, agreed, held, options)
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
