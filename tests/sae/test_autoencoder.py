"""SAE inference: the three architectures, folding, and calibrating a missing threshold."""

import pytest
import torch
from torch import Tensor

from whisper_sae_steer.errors import CalibrationError, SAEFormatError
from whisper_sae_steer.sae.autoencoder import SAE, Architecture, SAEConfig, calibrate_threshold

D_IN, D_SAE, K = 12, 40, 5


def make_sae(architecture: Architecture, seed: int = 0) -> SAE:
    """A random SAE with biases everywhere, thresholds that differ, and decoder rows of any norm."""
    generator = torch.Generator().manual_seed(seed)
    sae = SAE(SAEConfig(D_IN, D_SAE, architecture, k=K))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if architecture == "jumprelu":
            sae.threshold.copy_(torch.rand(D_SAE, generator=generator) * 5)
    return sae


def make_frames(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, D_IN, generator=torch.Generator().manual_seed(seed))


def dense_preactivations(sae: SAE, x: Tensor) -> Tensor:
    w, b, centre = sae.W_enc.double(), sae.b_enc.double(), sae.b_dec.double()
    return torch.einsum("...d,df->...f", x.double() - centre, w) + b


@torch.no_grad()
def test_jumprelu_equals_its_definition():
    sae, x = make_sae("jumprelu"), make_frames(3, 7)
    pre = dense_preactivations(sae, x)
    expected = torch.where((pre > sae.threshold) & (pre > 0), pre, 0.0)
    features, reconstruction = sae(x)
    torch.testing.assert_close(features.double(), expected, rtol=1e-5, atol=1e-5)
    wanted = torch.einsum("...f,fd->...d", expected, sae.W_dec.double()) + sae.b_dec
    torch.testing.assert_close(reconstruction.double(), wanted, rtol=1e-5, atol=1e-4)
    assert 0 < (features > 0).float().mean() < 0.5


@torch.no_grad()
def test_topk_keeps_k_of_each_frame():
    sae, x = make_sae("topk"), make_frames(4, 6)
    features = sae.encode(x, use_threshold=False)
    pre = dense_preactivations(sae, x).relu().float()
    assert ((features > 0).sum(-1) == K).all()
    smallest_kept = torch.where(features > 0, features, torch.inf).amin(-1)
    largest_left = torch.where(features > 0, -torch.inf, pre).amax(-1)
    assert (smallest_kept >= largest_left).all()
    torch.testing.assert_close(features[features > 0], pre[features > 0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_batchtopk_keeps_k_a_frame_over_all_frames():
    sae, x = make_sae("batchtopk"), make_frames(4, 6)
    features = sae.encode(x, use_threshold=False)
    assert int((features > 0).sum()) == K * 24
    assert len((features > 0).sum(-1).unique()) > 1
    flat = sae.encode(x.flatten(0, 1), use_threshold=False)
    assert torch.equal(features.flatten(0, 1), flat)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_more_than_there_are_features(architecture: Architecture):
    sae = SAE(SAEConfig(D_IN, D_SAE, architecture, k=D_SAE + 3))
    sae.W_enc.normal_(generator=torch.Generator().manual_seed(0))
    x = make_frames(5)
    expected = dense_preactivations(sae, x).relu().float()
    torch.testing.assert_close(sae.encode(x, use_threshold=False), expected)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_no_threshold_is_never_taken_for_zero(architecture: Architecture):
    sae = make_sae(architecture)
    with pytest.raises(SAEFormatError, match="calibrate_threshold"):
        sae(make_frames(2))
    assert not hasattr(sae, "threshold")
    assert "threshold" not in sae.state_dict()


@pytest.mark.parametrize("k", [None, 0])
def test_topk_needs_k(k: int | None):
    with pytest.raises(SAEFormatError, match="needs k"):
        SAE(SAEConfig(D_IN, D_SAE, "topk", k=k))


@torch.no_grad()
def test_calibrated_threshold_gives_what_batchtopk_gave():
    sae, x = make_sae("batchtopk"), make_frames(8, 25)
    expected = sae.encode(x, use_threshold=False)
    calibrate_threshold(sae, x)
    assert sae.config.architecture == "jumprelu"
    assert torch.equal(sae.encode(x), expected)
    assert (sae.threshold == sae.threshold[0]).all()
    torch.testing.assert_close(sae.encode(x[3, 4]), expected[3, 4])


@torch.no_grad()
def test_calibrating_again_with_another_k():
    sae, x = make_sae("jumprelu"), make_frames(300)
    calibrate_threshold(sae, x, k=2)
    assert int((sae.encode(x) > 0).sum()) == 600
    assert sae.config.k == 2


@torch.no_grad()
def test_calibrating_with_k_above_all_features():
    sae, x = SAE(SAEConfig(D_IN, D_SAE, "topk", k=D_SAE)), make_frames(50)
    sae.W_enc.normal_(generator=torch.Generator().manual_seed(0))
    calibrate_threshold(sae, x)
    assert torch.equal(sae.encode(x) > 0, sae.preactivations(x) > 0)


@pytest.mark.parametrize("frames", [make_frames(0), make_frames(4) * torch.nan])
def test_calibrating_on_nothing(frames: Tensor):
    with pytest.raises(CalibrationError, match="frames"):
        calibrate_threshold(make_sae("topk"), frames)


def test_calibrating_without_k():
    with pytest.raises(SAEFormatError, match="k is needed"):
        calibrate_threshold(SAE(SAEConfig(D_IN, D_SAE)), make_frames(4))


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["jumprelu", "topk", "batchtopk"])
def test_folding_the_input_scale(architecture: Architecture):
    x, scale = make_frames(6, 9), 0.37
    trained, folded = make_sae(architecture), make_sae(architecture)
    folded.fold_input_scale(scale)
    use_threshold = architecture == "jumprelu"
    before, after = trained(x * scale, use_threshold), folded(x, use_threshold)
    assert torch.equal(before.features > 0, after.features > 0)
    torch.testing.assert_close(after.features * scale, before.features)
    torch.testing.assert_close(after.reconstruction * scale, before.reconstruction)


@torch.no_grad()
def test_unit_decoder_norms_change_no_reconstruction():
    x, plain, unit = make_frames(50), make_sae("jumprelu"), make_sae("jumprelu")
    plain.W_dec[3] = unit.W_dec[3] = 0
    unit.normalize_decoder()
    norms = unit.W_dec.norm(dim=-1)
    torch.testing.assert_close(norms[norms > 0], torch.ones(D_SAE - 1))
    before, after = plain(x), unit(x)
    kept = torch.arange(D_SAE) != 3
    assert torch.equal(before.features[:, kept] > 0, after.features[:, kept] > 0)
    torch.testing.assert_close(before.reconstruction, after.reconstruction, rtol=1e-4, atol=1e-4)
    assert after.features.isfinite().all()


@pytest.mark.parametrize("shape", [(3, D_IN + 1), (D_IN, 1), (2 * D_IN,), ()])
def test_activations_of_another_width(shape: tuple[int, ...]):
    x = torch.zeros(shape)
    for sae in (make_sae("jumprelu"), make_sae("topk")):
        with pytest.raises(SAEFormatError, match="reads activations of width 12, not of shape"):
            sae(x, use_threshold=False)
        with pytest.raises(SAEFormatError, match="width 12"):
            calibrate_threshold(sae, x)


@torch.no_grad()
def test_calibrating_on_one_frame():
    sae = make_sae("topk")
    calibrate_threshold(sae, make_frames(1)[0])
    assert int((sae.encode(make_frames(1)) > 0).sum()) == K
