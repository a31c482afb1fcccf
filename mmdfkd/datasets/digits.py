# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""The original data of the embedded benchmark: scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError

from .packed import PackedDataset

_TEST_SIZE = 500


def split_indices(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits the digits into training and test set, every class by the same share.

    Each class gives the floor of its exact share to the test set; the classes with the largest
    remainders give one more until there are 500. Which images these are is drawn from numpy's
    legacy stream with seed 0, which numpy guarantees never to change.

    Args:
        labels: (N,) class numbers from 0 to 9.

    Returns:
        Positions of the training images and of the 500 test images, both ascending.
    """
    counts = np.bincount(labels)
    share = counts * _TEST_SIZE / len(labels)
    quota = np.floor(share).astype(int)
    quota[np.argsort(quota - share, kind='stable')[: _TEST_SIZE - quota.sum()]] += 1
    random = np.random.RandomState(0)
    members = [random.permutation(np.flatnonzero(labels == k)) for k in range(len(counts))]
    test = np.sort(np.concatenate([m[:n] for m, n in zip(members, quota, strict=True)]))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return train, test


@DATASETS.register_module()
class DigitsDataset(PackedDataset):
    """1,797 scans of handwritten digits in grey, 1,297 to train and 500 to test.

    The scans ship with scikit-learn (E. Alpaydin and C. Kaynak, "Optical Recognition of
    Handwritten Digits", UCI 1998, https://doi.org/10.24432/C50P49): 8 x 8 pixels, values 0 to
    16. They are scaled to 0-255 and enlarged bilinearly.

    Args:
        split: 'train' or 'test'.
        image_size: Side of the images in pixels, at least 8.

    Raises:
        UsageError: An unknown split, or too small an image.
    """

    def __init__(self, split: str = 'train', image_size: int = 32) -> None:
        if split not in ('train', 'test'):
            raise UsageError(f"DigitsDataset has no split={split!r}; give 'train' or 'test'.")
        if image_size < 8:
            raise UsageError(
                f'image_size={image_size} of DigitsDataset is smaller than the scans; give 8 or '
                'more, 32 for the benchmark.'
            )
        from sklearn.datasets import load_digits

        scans, labels = load_digits(return_X_y=True)
        train, test = split_indices(labels)
        chosen = train if split == 'train' else test
        # At 32 pixels every weight and 255/16 are dyadic: the result is exact on any machine.
        images = F.interpolate(
            torch.from_numpy(scans[chosen]).float().view(-1, 1, 8, 8),
            size=(image_size, image_size),
            mode='bilinear',
            align_corners=False,
        )
        images = images.mul_(255 / 16).round_().to(torch.uint8)
        super().__init__(
            images.permute(0, 2, 3, 1).contiguous().numpy(),
            labels=labels[chosen],
            metainfo={'name': 'digits', 'classes': tuple('0123456789')},
        )
