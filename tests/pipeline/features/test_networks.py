"""A ResNet-50 run in every way: the numbers are torchvision's own, whatever the batch, the lanes
and the threads.
"""

import copy
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from pipeline.api import calibration_crops
from pipeline.features import networks
from pipeline.features.networks import backbones
from pipeline.features.networks.arithmetic import torch_flags
from pipeline.features.networks.backbones import fold_batch_norms
from pipeline.features.networks.base import Loaded, Normalisation, PlainNetwork, _torch_threads
from pipeline.features.networks.cuda import CudaNetwork
from pipeline.features.streams.base import Machine, Standardisation
from pipeline.features.weights import WeightsSpec
from tests.raising import config_refuses

UNTRAINED = WeightsSpec("untrained", "0")
N = 4  # crops that are looked at


def on_gpu(test):
    """Marks a test that needs a GPU."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
    return pytest.mark.gpu(skip(test))


@pytest.fixture(scope="module")
def network(small_resnet):
    network = small_resnet()
    network.fc = torch.nn.Identity()
    return network


@pytest.fixture(scope="module")
def crops():
    """People, noise and black."""
    noise = np.random.default_rng(7).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    return np.concatenate([calibration_crops(N - 3), noise, np.zeros_like(noise[:1])])


@pytest.fixture(scope="module")
def truth(network, crops):
    """The textbook way, in float64."""
    return plain_features(network, crops)


@pytest.fixture(scope="module")
def exact(network):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks.cpu, "BATCH_SIZE", 4)
        return on_cpu(network, fast=False)


@pytest.fixture(scope="module")
def fast(network):
    return on_cpu(network, fast=True, batch_size=8)


def unfolded(network):
    return Loaded(network, {"network": "a small ResNet"}, (224, 224), Normalisation())


def loaded(network):
    return fold_batch_norms(unfolded(network))


def run(network, machine, *, fast):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks.backbones, "load", lambda *_: unfolded(network))
        precision = "fast" if fast else "exact"
        return networks.resnet50_on_device(
            WeightsSpec("file", "small.pt"), precision, machine, None
        )


def on_cpu(network, *, fast, batch_size=0, threads=2):
    return run(network, Machine("cpu", batch_size, threads), fast=fast)


def plain_features(network, crops):
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).double() / 255
    mean, std = (
        torch.tensor(v).double().view(3, 1, 1)
        for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    with torch.inference_mode():
        return copy.deepcopy(network).double()((pixels - mean) / std).numpy()


def error(features, truth):
    """The largest error, relative to the largest feature."""
    return float(np.abs(features - truth).max() / np.abs(truth).max())


def least_cosine(features, truth):
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(truth, axis=1)
    return float(((features * truth).sum(axis=1) / lengths).min())


def test_exact_features_are_torchvisions(exact, crops, truth):
    features = exact.compute_crops(crops)
    assert (features.shape, features.dtype) == ((N, 2048), np.float32)
    assert error(features, truth) < 1e-5


def test_fast_features_point_where_exact_ones_do(fast, crops, truth):
    features = fast.compute_crops(crops).astype(np.float64)
    assert least_cosine(features, truth) > 0.9999
    assert error(features, truth) < 0.02


def test_without_bf16_features_are_exact_and_it_is_told(network, crops, truth, monkeypatch):
    monkeypatch.setattr(networks.arithmetic, "has_bf16", lambda device: False)
    plain = on_cpu(network, fast=True)
    assert plain.arithmetic == "fp32, layer by layer"
    assert error(plain.compute_crops(crops), truth) < 1e-5


def test_what_a_gpu_computes_is_the_same_network(network, crops, truth):
    """As far as a CPU can say: its layers, weights and pixels, in both formats, and autocast."""
    pixels = torch.from_numpy(crops)
    with torch.inference_mode():
        exact = PlainNetwork(loaded(network), torch.float32, torch.contiguous_format)(
            pixels
        ).numpy()
        with torch.autocast("cpu", torch.bfloat16):
            fast = PlainNetwork(loaded(network), torch.float32, torch.channels_last)(pixels).numpy()
    assert error(exact, truth) < 1e-5
    assert fast.dtype == np.float32
    assert least_cosine(fast.astype(np.float64), truth) > 0.9999


def test_exact_has_no_tf32_whatever_the_environment_says():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1
    try:
        for precision, fast in (("exact", False), ("fast", True)):
            with torch_flags(precision):
                assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (
                    fast,
                    fast,
                )
                assert torch.backends.cudnn.deterministic is not fast
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="this torch has one way to set TF32"
)
def test_tf32_that_is_set_in_torchs_other_way_is_an_error_with_its_name():
    try:
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        with config_refuses(r"has set torch.backends.cudnn.conv.fp32_precision"):
            torch_flags("exact").__enter__()
    finally:
        torch.backends.cudnn.allow_tf32 = True  # sets both


@pytest.mark.parametrize("precision", ["fast", "exact"])
def test_a_crops_bits_do_not_depend_on_its_company_on_lanes_or_on_threads(
    precision, network, crops, request
):
    two = request.getfixturevalue(precision)
    together = two.compute_crops(crops)
    assert_array_equal(two.compute_crops(crops[2:3]), together[2:3])
    assert_array_equal(two.compute_crops(crops[::-1]), together[::-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks.cpu, "BATCH_SIZE", two.batch_size)
        one = on_cpu(network, fast=precision == "fast", batch_size=two.batch_size, threads=1)
    assert (one.lanes, two.lanes) == (1, 2)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert_array_equal(one.compute_crops(crops), together)
    finally:
        torch.set_num_threads(before)


def test_the_processs_number_of_threads_is_left_alone():
    lanes, both = _torch_threads(2), threading.Barrier(2)  # so that it takes both lanes

    def inside(_):
        both.wait(timeout=180)
        return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert list(lanes.map(inside, range(2))) == [1, 1]
        with ThreadPoolExecutor(1) as elsewhere:
            assert [torch.get_num_threads(), elsewhere.submit(torch.get_num_threads).result()] == [
                3,
                3,
            ]
    finally:
        torch.set_num_threads(before)


def test_an_untrained_networks_features_are_standardised_over_rendered_crops(small_backbone):
    computer = networks.resnet50_on_device(UNTRAINED, "exact", Machine(device="cpu"), None)
    features = computer.compute_crops(calibration_crops(4))
    assert np.abs(features.mean(axis=0)).max() < 1e-2
    assert np.median(features.std(axis=0, ddof=1)) == pytest.approx(1, abs=1e-2)
    provenance = computer.provenance
    assert (provenance["stand_in"], provenance["device"]) == (True, "cpu")
    assert provenance["arithmetic"].startswith("fp32")
    assert len(provenance["standardisation"]["mean"]) == 2048


def test_a_feature_that_no_rendered_crop_has_is_not_made_huge_where_another_image_has_it(
    small_backbone, monkeypatch
):
    def first_is_rare(self, crops):
        features = np.random.default_rng(0).normal(9, 0.25, (len(crops), 2048))
        features[:, 0] = 0.0
        return features

    monkeypatch.setattr(networks.cpu.CpuNetwork, "compute_crops", first_is_rare)
    statistics = networks.calibration.statistics(backbones.load(UNTRAINED, (224, 224)))
    assert (0.5 - statistics.mean[0]) / statistics.std[0] < 30
    assert statistics.std[1:] == pytest.approx([0.25] * 2047, rel=2)


def test_recorded_statistics_are_taken_over(small_backbone, monkeypatch, crops):
    monkeypatch.setattr(networks.calibration, "CALIBRATION_CROPS", -1)  # none are asked for
    mean, std = [2.0] * 2048, [4.0] * 2048
    recorded = Standardisation(tuple(mean), tuple(std))
    computer = networks.resnet50_on_device(UNTRAINED, "exact", Machine(device="cpu"), recorded)
    standardised = computer.compute_crops(crops[:1])
    unchanged = Standardisation((0.0,) * 2048, (1.0,) * 2048)
    plain = networks.resnet50_on_device(UNTRAINED, "exact", Machine(device="cpu"), unchanged)
    assert_array_equal(standardised, (plain.compute_crops(crops[:1]) - 2) / 4)
    assert computer.provenance["standardisation"] == {"mean": mean, "std": std}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cuda", "finds no CUDA device here"),
        ("cuda:1", "finds no CUDA device here"),
        ("tpu", "expected auto, cpu, cuda, or one GPU"),
        ("cuda:x", "expected auto, cpu, cuda, or one GPU"),
        ("cpu:0", "expected auto, cpu, cuda, or one GPU"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(device, told):
    with config_refuses(f"device '{device}'.*{told}"):
        networks.resnet50_on_device(
            WeightsSpec("file", "nowhere.pt"), "fast", Machine(device=device), None
        )


def test_one_gpu_of_several_is_chosen_by_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(networks.chosen_device(text)) for text in ("auto", "cuda:1", "cpu")] == [
        "cuda",
        "cuda:1",
        "cpu",
    ]
    with config_refuses(r"device 'cuda:2': there are 2 CUDA devices here"):
        networks.chosen_device("cuda:2")


def test_without_a_compiler_a_gpus_network_is_not_compiled_and_a_note_says_so(
    network, crops, monkeypatch, capsys
):
    """As far as a CPU can say."""

    def compile_(*_, **__):
        def fail(pixels):
            raise RuntimeError("Failed to find C compiler.\nSet the variable CC.")

        return fail

    def compute(self, crops, labels):
        with torch.inference_mode():
            return self._forward(torch.from_numpy(crops)).numpy()

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "made up")
    monkeypatch.setattr(CudaNetwork, "_compute", compute)
    there = CudaNetwork(loaded(network), torch.device("cpu"), Machine(batch_size=N), "fast")
    assert there.arithmetic == "bf16, autocast"
    assert "Failed to find C compiler." in capsys.readouterr().err
    assert there(crops).shape == (N, 2048)


@on_gpu
@pytest.mark.filterwarnings("ignore:.*script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("precision", "told"), [("exact", "fp32 without TF32"), ("fast", "compiled")]
)
def test_a_gpu_gives_torchvisions_features(precision, told, network, crops, truth):
    device = torch.device("cuda", 0)
    memory = np.zeros((2, 64, 224, 224, 3), np.uint8)
    memory[:, :N] = crops
    there = CudaNetwork(loaded(network), device, Machine(batch_size=64), precision)
    assert told in there.arithmetic
    there.adopt(memory)
    try:
        features = np.stack([there(part) for part in memory])[:, :N].astype(np.float64)
    finally:
        there.release()
    assert least_cosine(features[0], truth) > 0.9999
    if precision == "exact":
        assert error(features[0], truth) < 1e-5
        assert_array_equal(features[0], features[1])


@on_gpu
def test_a_gpu_computes_any_network_in_bf16(network, crops):
    fast = networks.network_on_device(
        lambda: loaded(network), "fast", Machine("cuda", batch_size=4)
    )
    exact = networks.network_on_device(lambda: loaded(network), "exact", Machine("cuda"))
    assert fast.arithmetic == "bf16, compiled"
    wide = exact.compute_crops(crops).astype(np.float64)
    assert least_cosine(fast.compute_crops(crops).astype(np.float64), wide) > 0.9999


@on_gpu
def test_a_network_of_several_streams_pins_and_unpins_the_memory_of_each(network):
    there = CudaNetwork(loaded(network), torch.device("cuda"), Machine(batch_size=1), "fast")
    memories = [np.zeros((1, 224, 224, 3), np.uint8) for _ in range(2)]
    for _ in range(2):  # unpinned, all of it can be pinned once more
        for memory in memories:
            there.adopt(memory)
        for _ in memories:
            there.release()


def test_calibration_crops_are_the_same_everywhere_and_at_most_96():
    """Features with random weights, which the cache keeps, rest on their bits."""
    crops = calibration_crops(96)
    assert (crops.shape, crops.dtype) == ((96, 224, 224, 3), np.uint8)
    assert hashlib.sha256(crops.tobytes()).hexdigest().startswith("67ee4fa0fe2485e6")
    np.testing.assert_array_equal(calibration_crops(3), crops[:3])
    with pytest.raises(ValueError, match="at most 96 calibration crops, found 97"):
        calibration_crops(97)
