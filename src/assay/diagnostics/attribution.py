"""Maps (N, H, W) of what a logit rests on: gradient, integrated gradients, SmoothGrad and Grad-CAM."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.diagnostics.layers import last_feature_map, recorded_calls
from assay.errors import DependencyError, ModelError
from assay.models.calls import ModelCall, differentiate, refusing
from assay.records.saliency import MapMethod
from assay.runtime import generator

PATH_STEPS = 16  # of integrated gradients, Gauss-Legendre
NOISY_COPIES = 16  # of SmoothGrad
NOISE = 0.15  # their standard deviation, as a share of the picture's range of values
EXPECTED = "a model whose logits can be differentiated with respect to the image"


@dataclass(frozen=True, eq=False)
class Pictured:
    """Images (N, C, H, W) in [0, 1], the class (N,) whose logit is explained, and the ids that seed random numbers."""

    images: Tensor
    targets: Tensor
    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)

    def only(self, places: Tensor) -> Pictured:
        """Some of them."""
        chosen = places.to(self.images.device)
        return Pictured(self.images[chosen], self.targets[chosen], tuple(self.ids[i] for i in places.tolist()))


Attribution = Callable[[ModelCall, Pictured], Tensor]  # maps (N, H, W); what is larger is marked more


def gradient(network: ModelCall, pictured: Pictured) -> Tensor:
    """Σ_c |∂z/∂x_c|."""
    size = network.rows_that_fit(tuple(pictured.images.shape[1:]), most=len(pictured), gradients=True)
    maps = []
    for images, targets in zip(torch.split(pictured.images, size), torch.split(pictured.targets, size), strict=True):
        leaf = images.detach().clone().requires_grad_(True)
        logits = network(leaf)
        if not logits.requires_grad:
            raise ModelError("model", expected=EXPECTED, got="an output cut off from its input")
        (slope,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), leaf, allow_unused=True)
        maps.append((torch.zeros_like(leaf) if slope is None else slope).abs().sum(dim=1))
    return torch.cat(maps)


def integrated_gradients(network: ModelCall, pictured: Pictured) -> Tensor:
    """Σ_c of the gradient's mean along the line from black to the picture, times the picture; signed."""
    return integrate(network, pictured).sum(dim=1)


def integrate(network: ModelCall, pictured: Pictured) -> Tensor:
    """Integrated gradients of every value (N, C, H, W); they sum to z(picture) − z(black)."""
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(network)
    parts = [
        method.attribute(image, target=target, n_steps=PATH_STEPS, internal_batch_size=_rows(network, image))
        for image, target, _ in _one_by_one(pictured)
    ]
    return torch.cat(parts).detach()


def smoothgrad(network: ModelCall, pictured: Pictured) -> Tensor:
    """Σ_c |mean of ∂z/∂x_c over copies with Gaussian noise|."""
    from captum.attr import NoiseTunnel, Saliency

    method = NoiseTunnel(Saliency(network))
    maps = []
    with torch.random.fork_rng():
        for image, target, identity in _one_by_one(pictured):
            torch.manual_seed(generator(identity).initial_seed())
            slope = method.attribute(
                image,
                nt_type="smoothgrad",
                nt_samples=NOISY_COPIES,
                nt_samples_batch_size=min(NOISY_COPIES, _rows(network, image)),
                stdevs=noise_of(image),
                target=target,
                abs=False,
            )
            maps.append(slope.detach().abs().sum(dim=1))
    return torch.cat(maps)


def noise_of(image: Tensor) -> float:
    """The standard deviation of SmoothGrad's noise for a picture."""
    return NOISE * float(image.detach().max() - image.detach().min())


def grad_cam(layer: nn.Module) -> Attribution:
    """Σ_k of the channels of a feature map, each times the logit's mean slope there; signed, enlarged to (H, W)."""

    def run(network: ModelCall, pictured: Pictured) -> Tensor:
        from captum.attr import LayerAttribution, LayerGradCam

        method = LayerGradCam(network, layer)
        maps = []
        for image, target, _ in _one_by_one(pictured):
            coarse = method.attribute(image, target=target).detach()[:1].float()  # filled rows come behind it
            maps.append(LayerAttribution.interpolate(coarse, image.shape[2:], interpolate_mode="bilinear"))
        return torch.cat(maps).sum(dim=1)

    return run


def choose_methods(
    network: ModelCall, model: nn.Module, example: Tensor, *, wanted: tuple[MapMethod, ...]
) -> tuple[dict[MapMethod, Attribution], dict[MapMethod, str], str | None]:
    """The ``wanted`` methods that this model and this installation allow, why not the others, and Grad-CAM's layer."""
    methods: dict[MapMethod, Attribution] = {}
    refused: dict[MapMethod, str] = {}
    layer = None
    known: dict[MapMethod, Attribution] = {
        "gradient": gradient, "integrated-gradients": integrated_gradients, "smoothgrad": smoothgrad,
    }  # fmt: skip
    for name in wanted:
        if name != "gradient" and importlib.util.find_spec("captum") is None:
            refused[name] = str(DependencyError("captum", extra="maps", purpose=name))
        elif name in known:
            methods[name] = known[name]
        else:
            with torch.no_grad(), recorded_calls(model) as calls:
                network(example)
            call = last_feature_map(calls)
            if call is None:
                refused[name] = "no convolutional feature map"
            else:
                methods[name], layer = grad_cam(call.module), call.name or type(call.module).__name__
    return methods, refused, layer


def attribute(attribution: Attribution, network: ModelCall, pictured: Pictured) -> Tensor:
    """The maps float32 (N, H, W) on the CPU. Raises :class:`ModelError` where the model cannot be differentiated."""

    def run() -> Tensor:
        with torch.enable_grad():
            return attribution(network, pictured).detach().float().cpu()

    with refusing(network.model, expected=EXPECTED, where="model"):
        return differentiate(network.model, run)


def _rows(network: ModelCall, image: Tensor) -> int:
    return network.rows_that_fit(tuple(image.shape[1:]), most=max(PATH_STEPS, NOISY_COPIES), gradients=True)


def _one_by_one(pictured: Pictured) -> Iterator[tuple[Tensor, int, int]]:
    """A picture at a time (1, C, H, W): its copies fill a batch, and hooks see no other's rows."""
    for i, identity in enumerate(pictured.ids):
        yield pictured.images[i : i + 1].detach().clone().requires_grad_(True), int(pictured.targets[i]), identity
