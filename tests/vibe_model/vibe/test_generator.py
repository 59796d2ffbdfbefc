import pytest
import torch
from torch.testing import assert_close

from pipeline.errors import ConfigError
from tests.vibe_model.builders import assert_agrees, small_vibe
from vibe_model.cameras import project
from vibe_model.vibe.networks import Regressor, TemporalEncoder


def test_both_directions_side_by_side_go_through_the_linear_layer():
    encoder = TemporalEncoder(feature_size=6, hidden_size=5, bidirectional=True, add_linear=False)
    assert encoder.linear.in_features == 10
    assert encoder(torch.zeros(2, 3, 6)).shape == (2, 3, 6)


def test_without_a_linear_layer_the_hidden_size_must_be_the_features():
    with pytest.raises(ConfigError, match="hidden_size"):
        TemporalEncoder(feature_size=6, hidden_size=5, add_linear=False)
    encoder = TemporalEncoder(feature_size=6, hidden_size=6, add_linear=False)
    features = torch.randn(2, 3, 6)
    # Neither linear layer nor ReLU: what is added is the GRU's output, of either sign.
    assert_close(encoder(features) - features, encoder.gru(features)[0])
    assert (encoder.gru(features)[0] < 0).any()


@pytest.mark.parametrize("residual", [True, False])
def test_the_encoder_is_a_gru_a_relu_a_linear_layer_and_the_features(residual):
    torch.manual_seed(0)
    encoder = TemporalEncoder(feature_size=6, hidden_size=5, use_residual=residual)
    features = torch.randn(2, 4, 6)
    weight, bias = encoder.linear.parameters()
    expected = encoder.gru(features)[0].relu() @ weight.T + bias
    assert_close(encoder(features), expected + (features if residual else 0))


def test_the_regressor_adds_three_corrections_to_the_mean_and_has_their_gradients(body):
    torch.manual_seed(0)
    regressor = Regressor(body, feature_size=6, hidden_size=7).double().eval()
    for layer in (regressor.decpose, regressor.decshape, regressor.deccam):
        torch.nn.init.normal_(layer.weight)
    features = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    toward = torch.randn(4, 157, dtype=torch.float64)

    def plain():
        parts = [
            getattr(regressor, f"init_{name}").expand(4, -1) for name in ("pose", "shape", "cam")
        ]
        for _ in range(3):
            state = regressor.fc2(regressor.fc1(torch.cat([features, *parts], dim=1)))
            decoders = (regressor.decpose, regressor.decshape, regressor.deccam)
            parts = [part + layer(state) for part, layer in zip(parts, decoders, strict=True)]
        return parts

    inputs = [features, *regressor.parameters()]
    assert_close(torch.cat(regressor(features), dim=1), torch.cat(plain(), dim=1))
    expected = torch.autograd.grad((torch.cat(plain(), dim=1) * toward).sum(), inputs)
    found = torch.autograd.grad((torch.cat(regressor(features), dim=1) * toward).sum(), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


def test_a_point_is_projected_as_by_hand():
    # scale 0.5: depth = 2 * 5000 / 112 = 89.2857..., so one metre aside is 5000 / 89.2857 = 56 px,
    # half of 112.
    camera = torch.tensor([0.5, 0.25, -0.5])
    points = torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    expected = torch.tensor([[0.5 * 1.25, 0.5 * -0.5], [0.5 * 0.25, 0.5 * -0.5]])
    assert_close(project(points, camera), expected)
    # A metre further from the camera: smaller by depth / (depth + 1).
    depth = 10000 / 112
    assert_close(
        project(torch.tensor([[1.0, 0, 1]]), camera)[0, 0].item(), 0.625 * depth / (depth + 1)
    )


@pytest.mark.parametrize("length", [1, 3, 16])
def test_outputs_of_a_window_of_any_length_say_the_same(body, length):
    model = small_vibe(seed=1, body=body, seqlen=16).eval()
    with torch.no_grad():
        out = model(torch.randn(2, length, 6))
    shapes = {name: tuple(value.shape[2:]) for name, value in out.items()}
    assert shapes == {
        "theta": (85,),
        "verts": (30, 3),
        "kp_2d": (49, 2),
        "kp_3d": (49, 3),
        "rotmat": (24, 3, 3),
    }
    assert all(value.shape[:2] == (2, length) for value in out.values())
    assert_agrees(out, body, project)


@pytest.mark.parametrize("eval_joints", [False, True])
def test_without_vertices_all_else_is_the_same_and_evaluation_joints_are_of_the_vertices(
    body, eval_joints
):
    model = small_vibe(body=body).eval()
    features = torch.randn(2, 3, 6)
    full, joints = (
        model(features, eval_joints=eval_joints, vertices=wanted) for wanted in (True, False)
    )
    assert full.keys() - joints.keys() == {"verts"}
    for name, value in joints.items():
        assert_close(value, full[name])
    if eval_joints:
        assert_close(full["kp_3d"][0], body.common14(full["verts"][0]))
        assert_close(full["kp_2d"], project(full["kp_3d"], full["theta"][..., :3]))


def test_without_layers_each_frame_is_regressed_from_its_own_feature(body):
    model = small_vibe(body=body, n_layers=0).eval()
    assert not [name for name in model.state_dict() if name.startswith("encoder")]
    features = torch.randn(2, 3, 6)
    alone = model(features.flatten(0, 1)[:, None])["theta"]
    assert_close(model(features)["theta"], alone.reshape(2, 3, 85))
