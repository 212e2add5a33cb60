"""Policies as transforms for torchvision's Compose and torch's DataLoader: one image in, the same type out."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assay.augment.engine import prepare_kernels
from assay.augment.language import parse_policy
from assay.augment.plan import Fill, Interpolation, check_images
from assay.augment.policies import Policy
from assay.errors import DataError, OptionError


class AugmentTransform:
    """A policy as a transform: PIL image in, PIL image out; uint8 tensor (C, H, W) or (B, C, H, W) in, the same out.

    Put it where images are still bytes: before ``ToTensor`` or ``ToDtype``. The kernels are compiled here, once, so
    that forked workers inherit them.

    Args:
        policy: a :class:`~assay.augment.policies.Policy` or its line of text.
        seed: with one, what happens to an image is a function of (seed, epoch, sample), whichever worker loads it and
            however many there are. The sample is identified by ``sample_id``, or else by its own bytes; call
            :meth:`set_epoch` before each epoch, also while persistent workers run. Without one, every call draws from
            torch's global generator, as torchvision's transforms do.
        fill: shown where an image has moved away; one number of 0..255, or one a channel.
        interpolation: of shears and rotations, ``"nearest"`` or ``"bilinear"``.

    Example:
        >>> from PIL import Image
        >>> from assay.augment import AugmentTransform
        >>> AugmentTransform("crop(4) + flip()", seed=0)(Image.new("RGB", (32, 32))).size
        (32, 32)
    """

    def __init__(
        self, policy: Policy | str, *, seed: int | None = None, fill: Fill = 0, interpolation: Interpolation = "nearest"
    ) -> None:
        if seed is not None and not isinstance(seed, int):
            raise OptionError("seed", expected="a whole number or None", got=repr(seed))
        self.policy = parse_policy(policy) if isinstance(policy, str) else policy
        self.seed = seed
        self.fill = fill
        self.interpolation: Interpolation = interpolation
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that live on see it change
        prepare_kernels()

    def set_epoch(self, epoch: int) -> None:
        """The images of another epoch, in this process and in every worker it has started."""
        self._epoch.fill_(epoch)

    def __call__(self, image: Any, *, sample_id: int | None = None) -> Any:
        """Augment one image (or a batch of tensors, each sample on its own). Raises :class:`DataError`."""
        if isinstance(image, Image.Image):
            if image.mode not in {"L", "RGB"}:
                raise DataError("image", expected="a picture of mode RGB or L", got=f"mode {image.mode}")
            pixels = np.asarray(image)
            channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            result = self._augment(torch.from_numpy(channels.copy())[None], sample_id)[0].numpy()
            return Image.fromarray(result[0] if len(result) == 1 else np.ascontiguousarray(result.transpose(1, 2, 0)))
        if isinstance(image, Tensor):
            plain = image.as_subclass(Tensor)
            batch = plain[None] if plain.ndim == 3 else plain
            return self._augment(batch, sample_id).reshape(image.shape).as_subclass(type(image))
        raise DataError("image", expected="a PIL image or a uint8 tensor", got=type(image).__name__)

    def __repr__(self) -> str:
        return f"AugmentTransform({self.policy}, seed={self.seed}, fill={self.fill}, {self.interpolation})"

    def _augment(self, batch: Tensor, sample_id: int | None) -> Tensor:
        check_images(batch)
        if self.seed is None:
            seed, ids = int(torch.randint(2**62, ())), torch.arange(len(batch))
        else:
            seed = self.seed
            ids = torch.tensor([_fingerprint(image) for image in batch] if sample_id is None else [sample_id])
        epoch = int(self._epoch)
        return self.policy(batch, ids, seed=seed, epoch=epoch, fill=self.fill, interpolation=self.interpolation)


def _fingerprint(image: Tensor) -> int:
    digest = hashlib.blake2b(image.contiguous().numpy().data, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
