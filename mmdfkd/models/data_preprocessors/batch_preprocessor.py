# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""From the uint8 batches of a dataloader to the normalised images a teacher expects, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmdfkd.registry import MODELS, TRANSFORMS
from mmdfkd.utils import UsageError


@MODELS.register_module()
class BatchPreprocessor(BaseDataPreprocessor):
    """Move a batch to the device, augment it, check its shape and normalise it.

    Everything works on the whole batch at once. The order is fixed: ``augment`` sees the images as
    they left the loader (usually uint8), ``(x - mean) / std`` comes last. The result is the *image
    space* of a run: teacher, student and generators all speak it.

    Args:
        mean: Mean of each channel, in units of 0-255 pixels.
        std: Standard deviation of each channel, in the same units, > 0.
        augment: Batch transforms for training, in their order: configs of ``TRANSFORMS`` or plain
            callables ``(B, C, H, W) -> (B, C, H', W')``. None leaves the images as they are.
        input_shape: ``(C, H, W)`` that the networks expect. None checks the channels only, against
            the length of ``mean``.
        non_blocking: Copy to the device asynchronously (takes effect from pinned memory).

    Raises:
        UsageError: For statistics that do not fit together or look like fractions of one, and, in
            the call, for a batch without images or with images of another shape.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Sequence[dict | Callable[[Tensor], Tensor]] | None = None,
        input_shape: Sequence[int] | None = None,
        non_blocking: bool = True,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        _check_statistics(mean, std)
        if augment is not None and not isinstance(augment, (list, tuple)):
            raise UsageError(
                f'data_preprocessor.augment is a {type(augment).__name__}; give None or a list '
                "such as [dict(type='BatchRandomFlip')]."
            )
        if input_shape is not None and (len(input_shape) != 3 or input_shape[0] != len(mean)):
            raise UsageError(
                f'data_preprocessor.input_shape={tuple(input_shape)} does not fit the '
                f'{len(mean)} channel(s) of mean; give (channels, height, width).'
            )
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self.augment = [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in augment or ()]
        # Not in checkpoints: the statistics belong to the config and to the teacher's metadata.
        self.register_buffer('mean', torch.tensor(mean).float().view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).float().view(-1, 1, 1), persistent=False)
        self._of_an_image: dict[tuple, tuple[Tensor, Tensor]] = {}

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make a batch ready for the networks.

        Args:
            data: A batch with ``inputs`` ``(B, C, H, W)``, uint8 or float, in 0-255; every other
                key (``index``, ``label``, ...) is only moved to the device.
            training: Whether to augment.

        Returns:
            A new dict with the same keys; ``inputs`` is float32 and normalised.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get('inputs'), Tensor):
            found = sorted(data) if isinstance(data, Mapping) else type(data).__name__
            raise UsageError(
                f"the dataloader yields {found}, but a batch is a dict with the tensor 'inputs' "
                "(B, C, H, W); set collate_fn=dict(type='whole_batch_collate') in the dataloader."
            )
        data = self.cast_data(data)
        images = data['inputs']
        if training:
            for transform in self.augment:
                images = transform(images)
        self._check_shape(images, training)
        data['inputs'] = self.normalize(images)
        return data

    def normalize(self, images: Tensor) -> Tensor:
        """``(images - mean) / std`` per channel; gradients pass through.

        Args:
            images: ``(B, C, H, W)``, uint8 or float, in 0-255.

        Returns:
            Float tensor of the same shape and memory format.
        """
        mean, std = self._statistics(images)
        # Arithmetic on uint8 itself converts number by number, at times ten times slower.
        centred = images - mean if images.is_floating_point() else images.to(mean.dtype).sub_(mean)
        return centred.div_(std)

    @torch.no_grad()
    def denormalize(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`, to view or store images; exact on uint8 images.

        Args:
            images: ``(B, C, H, W)``, float, normalised.

        Returns:
            uint8 tensor of the same shape, rounded and clamped to 0-255.
        """
        return torch.mul(images, self.std).add_(self.mean).round_().clamp_(0, 255).to(torch.uint8)

    def _statistics(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, per channel: ``(C, 1, 1)``.

        On a CPU they are repeated to a whole image in the memory order of ``images``: arithmetic
        along images takes less time than arithmetic along their rows or pixels.
        """
        if self.mean.device.type != 'cpu':
            return self.mean, self.std
        key = (self.mean.dtype, images.shape[1:], images.stride()[1:])
        if key not in self._of_an_image:
            with torch.inference_mode(False):  # else no later batch could have a gradient
                shape, strides = (1, *images.shape[1:]), (1, *images.stride()[1:])
                image = torch.empty_strided(shape, strides, dtype=self.mean.dtype)
                std = torch.empty_like(image).copy_(self.std)
                self._of_an_image[key] = image.copy_(self.mean), std
        return self._of_an_image[key]

    def _check_shape(self, images: Tensor, training: bool) -> None:
        found = tuple(images.shape[1:])
        channels = len(self.mean)
        if images.ndim == 4 and found == (self.input_shape or (channels, *found[1:])):
            return
        expected = self.input_shape or (channels, 'H', 'W')
        cropped = [each for each in self.augment if getattr(each, 'size', None) == found[1:]]
        if training and cropped and found[0] == channels:
            remedy = f'give {type(cropped[-1]).__name__} in augment size={expected[1:]}'
        elif images.ndim == 4 and found[0] == channels:
            remedy = (
                f'give a labelled set image_size={expected[1]}, pack a pool by pack_images.py '
                f"--size {expected[1]}, or, for training, add dict(type='BatchRandomResizedCrop', "
                f'size={expected[1:]}) to data_preprocessor.augment'
            )
        else:
            remedy = 'convert the images beforehand, or choose another pool or teacher'
            if channels == 3 and found[0] == 1:
                remedy = 'leave out grey=True of the set, or --grey of the pool, or choose another'
            elif channels == 1 and found[0] == 3:
                remedy = (
                    'read them in grey (grey=True of a LabelledFolder, pack_images.py --grey for a '
                    'pool), or choose another teacher'
                )
        raise UsageError(
            f'the dataloader (after data_preprocessor.augment) has {_shape(found)} images, the '
            f'teacher expects {_shape(expected)} (data_preprocessor.input_shape, mean): {remedy}.'
        )


def _check_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != len(std) or len(mean) == 0:
        raise UsageError(
            f'data_preprocessor: mean={list(mean)} and std={list(std)} need one number per channel.'
            ' They are those of model.teacher, unless the config says others.'
        )
    if min(std) <= 0 or max(std) < 1:
        raise UsageError(
            f'data_preprocessor: std={list(std)} must be positive and in units of 0-255 pixels; '
            'multiply the mean and std of images in [0, 1] by 255.'
        )


def _shape(shape: Sequence[Any]) -> str:
    return 'x'.join(map(str, shape))
