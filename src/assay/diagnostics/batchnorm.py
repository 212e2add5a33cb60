"""Running statistics against the activations they normalise, and the pixel convention against the usual others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from assay.arguments import checked
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import random_sample
from assay.diagnostics.alternatives import chance_of_gain, try_alternatives
from assay.diagnostics.batches import example, inputs, which_right
from assay.diagnostics.pixel_scales import Convention, own_normalization, replaced_normalizations
from assay.errors import ModelError
from assay.models.calls import ModelCall, calling
from assay.models.running_statistics import Moments, measure_running_statistics, moments_for, write_statistics
from assay.models.wrappers import Normalization
from assay.records.accuracy import Proportion
from assay.records.configuration import InputConvention, NormalizationAudit, NormLayer
from assay.runtime import hooked, uncompiled
from assay.runtime.model_state import ModelState

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAMPLE_STREAM = 0xB47
MANY = 0.5  # of the channels of a layer
TOGETHER = 4  # times the images of an ordinary batch, a gigabyte of them: layers add to the error of few images


@checked
def audit_normalization(
    model: nn.Module, dataset: ImageDataset, *, n: int = 512, batch_size: int = 128
) -> NormalizationAudit:
    """Running statistics of normalisation layers against the data, accuracy after re-estimating them, input scale.

    All in evaluation mode but for the re-estimation, which runs the normalisation layers alone in training mode with
    cumulative averaging.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found, statistics included.
        dataset: images and labels of K classes.
        n: most samples, drawn at random, always the same.
        batch_size: images in one forward pass.

    Returns:
        The record: for each layer the distance of its running statistics from those of its inputs (the symmetric
        Kullback-Leibler divergence of normal distributions, mean over channels, in nats), accuracy before and after
        re-estimation, and accuracy under each of six to twelve ways to scale the pixels, with the paired test. A way
        that cannot be better any more, after 64 samples or twice, four times … as many, gets no more of them.

    Raises:
        ModelError: the model cannot take the images, or does not return logits (N, K).

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=64)
        >>> model = assay.load_model("resnet8", classes=10, image_shape=data.shape)
        >>> audit = assay.audit_normalization(model, data)
        >>> audit.before.n, {layer.type for layer in audit.layers}, audit.conventions[0].convention
        (64, {'BatchNorm2d'}, 'as is')

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167; re-estimation as in Wu & Johnson 2021, arXiv:2105.07576.
    """
    data = dataset if n >= len(dataset) else random_sample(dataset, n, key=(0, SAMPLE_STREAM))
    norms = {m: name for name, m in model.named_modules() if isinstance(m, _NormBase) and m.running_mean is not None}
    with (
        torch.no_grad(),
        uncompiled(),
        calling(model, example(data), classes=data.classes) as network,
    ):
        batches, _ = inputs(network, data, batch_size=batch_size)
        right = []
        with _record_moments([*norms, *_stem(model)]) as (moments, ran):
            for batch in batches:
                ran.clear()
                right.append(_which_right(network, *batch))
        before = torch.cat(right)[: len(data)]  # what follows repeats them
        conventions = _conventions(data, own_normalization(model))
        outcomes = try_alternatives(
            conventions,
            lambda name, rows: which_right(
                network, data.subset(rows), batch_size=batch_size, convert=conventions[name]
            ),
            before=before,
        )
        layers = tuple(_compare(module, name, moments[module]) for module, name in norms.items() if module in moments)
        stem, pixels = next(((m, moments[m]) for m in _stem(model) if m in moments), (None, None))
        reestimated: Tensor | None = None
        refusal = ""
        if ran_norms := [norm for norm in norms if norm in moments]:
            try:
                reestimated = _reestimate(network, model, ran_norms, data, batch_size=batch_size)
            except ModelError as error:  # what the model gives as it stands has been measured
                refusal = str(error)
    names = {m: name or "(model)" for name, m in model.named_modules()}
    return NormalizationAudit(
        n=len(data),
        n_statistics=len(data),
        layers=layers,
        before=Proportion.of(int(before.sum()), len(data)),
        reestimated=None if reestimated is None else Proportion.of(int(reestimated.sum()), len(data)),
        not_reestimated=refusal,
        reestimated_p=None if reestimated is None else _chance(before, reestimated),
        conventions=(
            InputConvention.of(int(before.sum()), len(data), convention="as is"),
            *(
                InputConvention.of(each.correct, each.n, convention=name, **each.counts)
                for name, each in outcomes.items()
            ),
        ),
        stem=names[stem] if stem is not None else "",
        stem_mean=float(pixels.mean.mean()) if pixels else float("nan"),
        stem_std=float((pixels.variance().mean() + pixels.mean.var(correction=0)).sqrt()) if pixels else float("nan"),
    )


@contextmanager
def _record_moments(modules: list[nn.Module]) -> Iterator[tuple[dict[nn.Module, Moments], set[nn.Module]]]:
    """Moments of the inputs, and the modules that ``ran``, to be cleared before each batch.

    A layer without statistics is the one that reads the pixels: where it runs again in a batch, it reads others.
    """
    moments: dict[nn.Module, Moments] = {}
    ran: set[nn.Module] = set()

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if module in ran and not isinstance(module, _NormBase):
            return
        ran.add(module)
        if args and isinstance(args[0], Tensor) and args[0].ndim > 1 and args[0].is_floating_point():
            moments.setdefault(module, moments_for(module)).add(args[0])

    with hooked(*(module.register_forward_pre_hook(before) for module in dict.fromkeys(modules))):
        yield moments, ran


def _stem(model: nn.Module) -> Sequence[nn.Module]:
    """The first weighted layer by order of definition, taken to be the one that reads the pixels; none without any."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.RNNBase)
    return [m for m in model.modules() if isinstance(m, kinds)][:1]


def _compare(module: _NormBase, name: str, moments: Moments) -> NormLayer:
    assert module.running_mean is not None
    assert module.running_var is not None
    mean, variance = module.running_mean.cpu().double(), module.running_var.cpu().double() + module.eps
    data_mean, data_variance = moments.mean, moments.variance() + module.eps
    shift = (data_mean - mean).square()
    ratio = data_variance / variance
    divergence = 0.25 * (ratio + 1 / ratio - 2 + shift / variance + shift / data_variance)  # ½·(KL + KL reversed)
    return NormLayer(
        name=name,
        type=type(module).__name__,
        channels=module.num_features,
        distance=float(divergence.mean()),
        mean_shift=float((shift / variance).mean().sqrt()),
        log_variance_ratio=float(ratio.log().abs().mean()),
        batches_tracked=None if module.num_batches_tracked is None else int(module.num_batches_tracked),
        oddities=tuple(_oddities(module)),
    )


def _oddities(module: _NormBase) -> list[str]:
    mean, variance = module.running_mean, module.running_var
    assert variance is not None
    oddities = []
    # Not by num_batches_tracked alone: checkpoints older than that counter load with it at 0.
    never_updated = module.num_batches_tracked is None or int(module.num_batches_tracked) == 0
    if never_updated and mean is not None and not bool(mean.any()) and bool((variance == 1).all()):
        oddities.append("statistics never updated (mean 0 and variance 1, as initialised)")
    if module.momentum is not None and not 0.001 <= module.momentum <= 0.5:
        oddities.append(f"momentum {module.momentum:g}: torch weighs the new batch with it, 0.1 is usual")
    if not 1e-8 <= module.eps <= 2e-3:
        oddities.append(f"eps {module.eps:g}: 1e-5 to 1e-3 is usual")
    share = float((variance <= module.eps).float().mean())  # below it, eps and not the data set the scale
    if share >= MANY:  # some channels die in training, and have none at all
        oddities.append(f"{100 * share:.0f} % of channels have a running variance near eps")
    return oddities


def _reestimate(
    network: ModelCall, model: nn.Module, norms: Collection[_NormBase], data: ImageDataset, *, batch_size: int
) -> Tensor:
    """Which are right with the statistics of ``data``; the old ones come back when the caller's block ends."""
    if len(data) < 2:
        raise ModelError("running statistics", expected="two samples or more", got=f"{len(data)}")
    if network.smallest == network.largest:  # repeated rows would count twice
        raise ModelError("running statistics", expected="batches of any size", got=network.note or "one size")
    most = min(batch_size, network.largest or batch_size)
    statistics = measure_running_statistics(
        model,
        norms,
        data.images,
        convert=lambda images: to_unit_range(images.to(network.device), network.dtype),
        batch_size=min(most, TOGETHER * network.rows_that_fit(data.shape, most=most)),
    )
    for norm, moments in statistics.items():
        write_statistics(norm, moments)
    if network.state is not None:
        network.state = ModelState(model)  # else the next call would put the old statistics back
    return which_right(network, data, batch_size=batch_size)


def _chance(before: Tensor, after: Tensor) -> float:
    """That of as many samples becoming right without a cause."""
    return chance_of_gain(int((after & ~before).sum()), int((before & ~after).sum()))


def _which_right(network: ModelCall, images: Tensor, labels: Tensor) -> Tensor:
    logits = network(images)
    return ((logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)).cpu()


def _conventions(data: ImageDataset, own: Normalization | None) -> dict[str, Convention]:
    """Other pixel conventions before the model as it is, and in place of a normalisation layer of its ``own``."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in data.images.unbind(1)])
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    means = shares @ levels
    deviations = (shares @ levels.square() - means.square()).clamp_min(1e-6).sqrt()
    mean, std = (t.float().view(-1, 1, 1) for t in (means, deviations))
    ways: dict[str, Convention] = {
        "standardised by the data's mean and deviation": lambda x: (x - mean.to(x)) / std.to(x),
        "in [−1, 1]": lambda x: 2 * x - 1,
        "in [0, 255]": lambda x: 255 * x,
        "divided by 255 twice": lambda x: x / 255,
        "standardisation undone": lambda x: x * std.to(x) + mean.to(x),
    }
    if data.shape[0] == 3:
        m, s = torch.tensor(IMAGENET_MEAN).view(-1, 1, 1), torch.tensor(IMAGENET_STD).view(-1, 1, 1)
        ways["standardised as for ImageNet"] = lambda x: (x - m.to(x)) / s.to(x)
        ways["channels reversed (BGR)"] = lambda x: x.flip(1)
    return ways if own is None else ways | replaced_normalizations(own, channels=len(own.mean))
