"""Videos whose frames carry their number, so that a test reads which frame is seen."""

from fractions import Fraction

import av
import numpy as np

BITS = 8
WIDTH, HEIGHT = 320, 180
SIDE = WIDTH // BITS  # of a block
TICKS = 30_000  # a second
N_FRAMES = 120


def image_of(number):
    """An image (H, W, 3): below grey, `number` in black and white blocks, the lowest bit first."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for bit in range(BITS):
        image[-SIDE:, bit * SIDE : (bit + 1) * SIDE] = 235 if number >> bit & 1 else 16
    return image


def _uneven(seed):
    steps = np.random.default_rng(seed).choice([1001, 2002, 500, 9000], N_FRAMES)
    return np.cumsum(steps).tolist()


EVEN = [1000 * n for n in range(N_FRAMES)]
# name -> time of each frame in ticks, and options of the encoder
VIDEOS = {
    "b_frames": (EVEN, {}),
    "no_b_frames": (EVEN, {"bf": "0"}),
    "many_key_frames": (EVEN, {"g": "15"}),
    "key_frames_alone": (EVEN, {"g": "1"}),
    "ntsc": ([1001 * n for n in range(N_FRAMES)], {}),
    "slow": ([3000 * n for n in range(N_FRAMES)], {"bf": "0"}),
    "fast": ([125 * n for n in range(N_FRAMES)], {}),
    "late": ([45_000 + tick for tick in EVEN], {}),
    "uneven": (_uneven(1), {}),
    "uneven_no_b_frames": (_uneven(2), {"bf": "0"}),
}


def write_numbered(file, name):
    """Write one of VIDEOS. Returns the times of its frames in s."""
    ticks, options = VIDEOS[name]
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "18", **options})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(image_of(number), "rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return np.array(ticks) / TICKS
