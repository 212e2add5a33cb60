from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.errors import AssayError
from assay.models.architectures import build


def make(**options: object) -> nn.Module:
    return build("allcnn", classes=10, image_shape=(3, 32, 32), options=options, normalization="none")


def test_has_the_papers_parameters() -> None:
    # 3→96, 96→96 twice, 96→192, 192→192 three times (3×3), 192→192 and 192→10 (1×1), each with a bias
    layers = [(3, 96, 9), (96, 96, 9), (96, 96, 9), (96, 192, 9), *[(192, 192, 9)] * 3, (192, 192, 1), (192, 10, 1)]
    closed_form = sum(a * b * k + b for a, b, k in layers)
    assert sum(parameter.numel() for parameter in make().parameters()) == closed_form == 1_369_738


def test_computes_the_papers_table() -> None:
    model = make().eval()
    weights = [(module.weight, module.bias) for module in model.modules() if isinstance(module, nn.Conv2d)]
    images = torch.rand(2, 3, 32, 32)
    x, sizes = images, []
    for i, (weight, bias) in enumerate(weights):
        stride, padding = (2 if i in {2, 5} else 1), (1 if i < 6 else 0)
        x = F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))
        sizes.append(x.shape[-1])
    assert sizes == [32, 32, 16, 16, 16, 8, 6, 6, 6]
    with torch.no_grad():
        torch.testing.assert_close(model(images), x.mean(dim=(2, 3)))


def test_dropout_is_on_the_input_and_after_both_strides() -> None:
    places = [(name, module.p) for name, module in make().named_modules() if isinstance(module, nn.Dropout)]
    assert places == [("dropout0", 0.2), ("features.dropout3", 0.5), ("features.dropout6", 0.5)]
    inner = dict(make().named_children())["features"]
    assert isinstance(inner, nn.Sequential)
    order = [name for name, _ in inner.named_children()]
    assert order[order.index("dropout3") - 1] == "relu3"


def test_last_rectifier_can_be_left_out() -> None:
    images = torch.rand(64, 3, 32, 32)
    with torch.no_grad():
        assert make().eval()(images).min() >= 0
        assert make(output_relu=False).eval()(images).min() < 0


@pytest.mark.parametrize(("size", "fits"), [(8, False), (9, True), (28, True)])
def test_smallest_image(size: int, fits: bool) -> None:
    def run() -> torch.Tensor:
        return build("allcnn", classes=3, image_shape=(1, size, size))(torch.rand(2, 1, size, size))

    if fits:
        assert run().shape == (2, 3)
    else:
        with pytest.raises(AssayError, match="allcnn: expected images of at least 9×9 pixels, got 8×8"):
            run()
