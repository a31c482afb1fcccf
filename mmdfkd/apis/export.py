# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""A trained student as a file that runs without mmdfkd."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdfkd.models.classifiers import (
    Classifier,
    ForeignClassifier,
    load_classifier,
    read_checkpoint,
    resolve_checkpoint,
    save_classifier,
)
from mmdfkd.models.classifiers.checkpoint import load_state, state_dict_of
from mmdfkd.models.classifiers.foreign import close
from mmdfkd.utils import UsageError
from mmdfkd.utils.files import atomic_path


def export_student(
    source: str | os.PathLike,
    file: str | os.PathLike,
    *,
    pixels: bool = True,
    network: nn.Module | None = None,
) -> Path:
    """Write a student as a file of its own, which may run without mmdfkd.

    .. code-block:: python

        export_student('work_dirs/distill/my_run', 'student.pt2')
        student = torch.export.load('student.pt2').module()
        logits = student(images)  # uint8 (B, C, H, W)

    Images have the size the student was trained on, batches any. The file is compared with the
    student on random images before it gets its name.

    Args:
        source: Work directory of a run, a ``student.pth``, or another checkpoint in the folder of
            one, such as an ``epoch_N.pth`` or the best one.
        file: Where to write it. The suffix says what: ``.pt`` TorchScript, for
            ``torch.jit.load``; ``.pt2`` a program of ``torch.export``; ``.onnx`` ONNX, which needs
            the packages onnx and onnxscript; ``.pth`` what ``student.pth`` is, a network that
            mmdfkd reads.
        pixels: Build the normalisation in: the file takes uint8 images. Without, it takes float
            images that are normalised like the teacher's. A ``.pth`` always does.
        network: A module like the student, whatever its weights, where the student was a module
            given to ``distill``: its file has the weights alone.

    Returns:
        The file.

    Raises:
        UsageError: There is no such student or no such format, or what would be written gives other
            logits than the student.
    """
    file = Path(file)
    if file.suffix not in (*WRITERS, '.pth'):
        suffixes = ', '.join((*WRITERS, '.pth'))
        raise UsageError(f'file={str(file)!r}: give it one of the suffixes {suffixes}.')
    student = _load(source, network).eval().requires_grad_(False)
    if file.suffix == '.pth':
        save_classifier(file, student, student.meta)
        return file
    model: nn.Module = student
    if pixels:
        model = nn.Sequential(Normalize(student.mean, student.std), student).eval()
    with atomic_path(file) as temporary:
        exported = _write(model, _images(2, student, pixels), temporary)
        for count in (1, 3):
            images = _images(count, student, pixels)
            logits, expected = exported(images), model(images)
            if logits.shape != expected.shape or not close(logits, expected):
                raise UsageError(
                    f'{file} would give other logits than the student for {count} images, so it '
                    'was not written. The network does something that this format cannot hold. '
                    f'Choose another of {", ".join(WRITERS)}.'
                )
    return file


class Normalize(nn.Module):
    """``(images - mean) / std`` per channel.

    Args:
        mean: Per channel, in units of 0 to 255.
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).float().view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(std).float().view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` of any type, normalised, as float."""
        return (images.float() - self.mean) / self.std


def _load(source: str | os.PathLike, network: nn.Module | None) -> Classifier:
    """The student of a run, of one of its checkpoints or of a file."""
    path = resolve_checkpoint(Path(source, 'student.pth') if Path(source).is_dir() else source)
    content = read_checkpoint(path)
    state = state_dict_of(content, path)
    trained = any(name.startswith('student.') for name in state)
    file = path.with_name('student.pth') if trained else path  # which describes the network
    if trained:
        if not file.is_file():
            raise UsageError(
                f'{path} is the checkpoint of a training, and student.pth, which describes the '
                'network, is not beside it. A run writes it when it ends: go on with --resume, '
                'or end it now with train_cfg.max_epochs as many as it has had.'
            )
        content = read_checkpoint(file)
        state = {
            name.removeprefix('student.'): tensor
            for name, tensor in state.items()
            if name.startswith('student.')
        }
    meta = content.get('meta') or {}
    known = meta.get('model') or {}
    if network is not None:
        names = ('size', 'fc', 'maps', 'input_shape', 'mean', 'std', 'name')
        settings: dict[str, Any] = {name: known.get(name) for name in names}
        student: Classifier = ForeignClassifier(_filled(network, state), **settings)
        student = load_classifier(file, student)
    elif known.get('type') == 'ForeignClassifier':
        raise UsageError(
            f'{file} holds the weights of {known["source"]}, which its file cannot rebuild. Give '
            'a module like it: network=....'
        )
    else:
        student = load_classifier(file)
    if trained:
        load_state(student, state, f'Checkpoint {path}')
        student.meta = {key: value for key, value in meta.items() if key != 'accuracy'}
    return student


def _filled(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """A copy of a module with those weights of a ``ForeignClassifier`` that fit.

    Its layers are found by what they compute, so its own weights, perhaps not even numbers, must
    not matter. Whether all fit is checked when they are loaded.
    """
    network = copy.deepcopy(network).cpu()
    for name, tensor in network.state_dict().items():
        final = f'head.fc.{name.rpartition(".")[2]}'  # the layer that was taken out
        weights = state.get(f'network.{name}', state.get(final))
        if weights is not None and weights.shape == tensor.shape:
            tensor.copy_(weights)
    return network


def _images(count: int, student: Classifier, pixels: bool) -> Tensor:
    """Random images as the file shall take them, always the same ones."""
    random = torch.Generator().manual_seed(count)
    if pixels:
        size = (count, *student.input_shape)
        return torch.randint(0, 256, size, dtype=torch.uint8, generator=random)
    return torch.randn(count, *student.input_shape, generator=random)


def _write(model: nn.Module, images: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    """Write a model in the format of the suffix, and read it back."""
    try:
        return WRITERS[path.suffix](model, images, path)
    except (UsageError, OSError):
        raise
    except Exception as error:  # what a format cannot hold fails in many ways
        reason = str(error).strip().partition('\n')[0][:160]
        raise UsageError(
            f'PyTorch {torch.__version__} cannot write the student as {path.suffix} '
            f'({type(error).__name__}: {reason}). Choose another of {", ".join(WRITERS)}, or a '
            'newer PyTorch.'
        ) from error


def _torchscript(model: nn.Module, images: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # it is deprecated, and what it warns of is compared
        torch.jit.trace(model, images, check_trace=False).save(str(path))
        return torch.jit.load(str(path))


def _program(model: nn.Module, images: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    batch = torch.export.Dim('batch')
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},), strict=False)
    torch.export.save(program, path)
    return torch.export.load(path).module()


def _onnx(model: nn.Module, images: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnx.reference
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f'ONNX needs packages that cannot be imported ({error}). Install them: pip install '
            'onnx onnxscript'
        ) from error
    program: Any = torch.onnx.export(
        model,
        (images,),
        input_names=['images'],
        output_names=['logits'],
        dynamic_shapes=({0: torch.export.Dim('batch')},),
        dynamo=True,
        verbose=False,
    )
    program.save(str(path), external_data=False)
    evaluator: Any = onnx.reference.ReferenceEvaluator(str(path))
    return lambda images: torch.from_numpy(evaluator.run(None, {'images': images.numpy()})[0])


#: What writes a model for example images to a path, by suffix, and returns what is read from there.
WRITERS = {'.pt': _torchscript, '.pt2': _program, '.onnx': _onnx}
