"""The tangent engine on small models of timm, against torch.func.jvp."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("timm")

from captum_lie.core.autodiff import differentiable
from captum_lie.core.tangents import fallbacks, pushforward
from tests.timm.families import make

MODELS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "resnet10t": ((48, 64), {}),
    "convnext_atto": ((64, 32), {}),
    "tf_efficientnet_lite0": ((64, 96), {}),
    "mobilenetv3_small_050": ((64, 96), {}),
    "vit_tiny_patch16_224": ((48, 64), {"img_size": (48, 64), "depth": 3}),
    "swin_tiny_patch4_window7_224": ((56, 56), {"img_size": 56, "depths": (2, 2, 1, 1)}),
    "mixer_s32_224": ((64, 64), {"img_size": 64}),
    "maxvit_rmlp_pico_rw_256": ((64, 64), {"img_size": 64}),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_equals_forward_mode_of_torch(name: str, batch: int) -> None:
    size, options = MODELS[name]
    model = make(name, **options).double()
    x = torch.rand(batch, 3, *size, dtype=torch.float64)
    tangents = torch.randn(2, *x.shape, dtype=torch.float64)
    with torch.no_grad(), differentiable():
        found = pushforward(model, (x,), (tangents,))
        expected = torch.stack([torch.func.jvp(model, (x,), (t,))[1] for t in tangents])
        assert not fallbacks(model, (x,))
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))
