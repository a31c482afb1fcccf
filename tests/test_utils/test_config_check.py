# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import glob
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from mmdfkd.engine import DistillRunner, RoleOptimWrapperConstructor
from mmdfkd.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    TASK_UTILS,
    TRANSFORMS,
    VISUALIZERS,
)
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_check import check_config
from mmdfkd.utils.config_read import load_config

ROOT = Path(__file__).parents[2]
CONFIGS = [
    os.path.relpath(p, ROOT)
    for p in sorted(glob.glob(f'{ROOT}/configs/*/*.py'))
    if '_base_' not in p
]


@MODELS.register_module()
class ToyLoss:
    def __init__(self, weight=1.0, reduction='mean'):
        pass


@MODELS.register_module()
class ToyNet:
    def __init__(self, width, depth=3, norm_cfg=None):
        pass


class ToyBase(BaseModel):
    default_types = dict(student='ToyNet')


@MODELS.register_module()
class ToyDistiller(ToyBase):
    default_types = dict(alignment='ToyLoss')

    def __init__(
        self,
        teacher,
        student: dict | nn.Module,
        alignment: dict | None = None,
        head=None,
        data_preprocessor=None,
    ):
        super().__init__(data_preprocessor)


@MODELS.register_module()
class ToyWrapper:
    def __init__(self, inner):
        pass


@TRANSFORMS.register_module()
class ToyFlip:
    def __init__(self, prob=0.5):
        pass


@DATASETS.register_module()
class ToySet(BaseDataset):
    def __init__(self, root, size=10):
        pass


@METRICS.register_module()
class ToyMetric:
    def __init__(self, topk=1):
        pass


@HOOKS.register_module()
class ToyHook(Hook):
    def __init__(self, interval=1):
        pass


@VISUALIZERS.register_module()
class ToyVisualizer:
    def __init__(self, name, vis_backends):
        pass


@MODELS.register_module()
class ToyHolder:
    def __init__(
        self,
        augment=None,
        pipeline=None,
        transforms=None,
        dataset=None,
        sampler=None,
        selector=None,
        metrics=None,
    ):
        pass


@MODELS.register_module('ToyTwin')
class ToyNetTwin:
    def __init__(self, width):
        pass


class ToyTwin:
    def __init__(self, dataset, place):
        pass


def toy():
    loader = dict(
        dataset=dict(type='ToySet', root='x', size=3),
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        batch_size=2,
        num_workers=0,
    )
    return Config(
        dict(
            default_scope='mmdfkd',
            note='a variable of the user',
            model=dict(
                type='ToyDistiller',
                teacher=dict(type='ToyNet', width=4, checkpoint='t.pth', norm_cfg=dict(type='BN')),
                student=dict(width=2),
                alignment=dict(weight=2.0),
                head=[dict(type='ToyWrapper', inner=dict(type='ToyNet', width=2))],
                data_preprocessor=dict(type='ImgDataPreprocessor', bgr_to_rgb=False),
            ),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(
                constructor='RoleOptimWrapperConstructor',
                student=dict(
                    type='AmpOptimWrapper',
                    optimizer=dict(type='SGD', lr=0.1, momentum=0.9),
                    clip_grad=dict(max_norm=1),
                ),
                generator=dict(optimizer=dict(type='Adam')),
            ),
            param_scheduler=dict(
                student=[
                    dict(
                        type='LinearLR',
                        start_factor=0.1,
                        convert_to_iter_based=True,
                        epoch_length=9,
                    )
                ],
                generator=dict(type='CosineAnnealingLR', T_max=2),
            ),
            val_dataloader=loader,
            val_cfg=dict(),
            val_evaluator=[dict(type='ToyMetric', topk=5)],
            default_hooks=dict(
                toy=dict(type='ToyHook', interval=2, priority='LOW'),
                logger=None,
                checkpoint=dict(type='CheckpointHook', interval=1),
                timer=None,
            ),
            custom_hooks=[dict(type='EMAHook'), dict(type='ToyHook', priority=10)],
            env_cfg=dict(
                cudnn_benchmark=True,
                keep_memory=True,
                tf32=None,
                mp_cfg={},
                dist_cfg={},
                resource_limit=4096,
            ),
            cfg=dict(type='a variable of the user too'),
            log_processor=dict(window_size=1),
            visualizer=dict(type='ToyVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
        )
    )


def test_a_good_config_passes():
    cfg = toy()
    before = cfg.to_dict()
    check_config(cfg)
    assert cfg.to_dict() == before
    cfg.val_evaluator = dict(type='Evaluator', metrics=[dict(type='ToyMetric', topk=5)])
    check_config(cfg)
    cfg.data_preprocessor = dict(type='BatchPreprocessor', augment=[])  # the rest is the teacher's
    check_config(cfg)


def test_a_good_config_of_another_library():
    sgd = dict(type='SGD', lr=0.1)
    cfg = toy()
    cfg.default_scope = 'mmengine'
    cfg.model = dict(type='mmdfkd.ToyNet', width=2)
    cfg.optim_wrapper = dict(constructor='DefaultOptimWrapperConstructor', optimizer=sgd)
    for key in ('train_dataloader', 'val_dataloader'):
        cfg[key].dataset.type = 'mmdfkd.ToySet'
    cfg.val_evaluator = cfg.custom_hooks = cfg.visualizer = None
    cfg.val_dataloader = cfg.val_cfg = None
    cfg.default_hooks.pop('toy')
    cfg.param_scheduler = dict(type='LinearLR')
    check_config(cfg)


@pytest.mark.parametrize(
    ('place', 'registry'),
    [
        ('augment', TRANSFORMS),
        ('pipeline', TRANSFORMS),
        ('transforms', TRANSFORMS),
        ('dataset', DATASETS),
        ('sampler', DATA_SAMPLERS),
        ('selector', TASK_UTILS),
        ('metrics', METRICS),
    ],
)
def test_a_name_that_several_registries_know(place, registry):
    """An argument's name tells which of them is meant."""
    registry.register_module(force=True, module=ToyTwin)
    inside = dict(type='ToyTwin', place=place)
    if place != 'sampler':
        inside['dataset'] = None  # which a sampler is given
    cfg = toy()
    cfg.model.head = dict(type='ToyHolder', **{place: inside})
    try:
        check_config(cfg)
    finally:
        del registry.module_dict['ToyTwin']


@pytest.mark.parametrize('path', CONFIGS)
def test_configs_of_this_repository(path):
    check_config(load_config(ROOT / path))


LIBRARY = [
    'resnet/resnet18_8xb16_cifar10.py',
    'resnet/resnet50_8xb256-rsb-a1-600e_in1k.py',  # augments, LAMB, paramwise
    'swin_transformer/swin-tiny_16xb64_in1k.py',
    'convnext/convnext-tiny_32xb128_in1k.py',  # EMAHook
    'mocov3/mocov3_resnet50_8xb512-amp-coslr-100e_in1k.py',  # self-supervised, AMP
    'dinov2/vit-small-p14_dinov2-pre_headless.py',
]


@pytest.mark.parametrize('name', LIBRARY)
def test_configs_of_mmpretrain(name):
    # Written by others and known to run: whatever is called a mistake here is ours.
    mmpretrain = pytest.importorskip('mmpretrain')
    cfg = load_config(Path(mmpretrain.__file__).parent / '.mim' / 'configs' / name)
    trains = cfg.get('train_dataloader') is not None
    if not trains and cfg.get('test_dataloader') is None:
        cfg.update(test_dataloader=None)
        with pytest.raises(UsageError, match='cannot test'):
            check_config(cfg, 'test')
        return
    check_config(cfg, 'train' if trains else 'test')


MISTAKES = [
    ('model.type', 'ToyDistilller', "model.type='ToyDistilller' is not registered. Did you mean"),
    ('model.type', 'toydistiller', "Did you mean 'ToyDistiller'?"),
    ('model.type', KeyError, "model has no 'type'"),
    (
        'model.student.widht',
        3,
        "widht is no argument of ToyNet. Did you mean 'width'",
    ),
    ('model.student.zzz', 3, 'It takes: depth, norm_cfg, width.'),
    ('model.alignment.wieght', 3, 'model.alignment.wieght is no argument of ToyLoss. Did you mean'),
    ('model.student.checkpoint', 'x', 'model.student.checkpoint is no argument of ToyNet'),
    ('model.head.0.inner.depht', 1, 'model.head.0.inner.depht is no argument of ToyNet'),
    ('model.head.0.inner.width', KeyError, "model.head.0.inner has no 'width', which ToyNet needs"),
    ('train_dataloader.dataset.root', KeyError, "train_dataloader.dataset has no 'root', which"),
    ('train_dataloader.dataset.type', 'ToyLoss', "train_dataloader.dataset.type='ToyLoss' is not"),
    ('train_dataloader.dataset.type', KeyError, "train_dataloader.dataset has no 'type'"),
    ('train_dataloader.worker_init_fn', {}, "train_dataloader.worker_init_fn has no 'type'"),
    ('val_cfg.bf16', True, 'val_cfg.bf16 is no argument of ValLoop'),
    (
        'train_dataloader.num_worker',
        1,
        "no argument of DataLoader. Did you mean 'num_workers'",
    ),
    ('train_dataloader.sampler.shufle', True, "Did you mean 'shuffle'?"),
    ('train_dataloader.sampler', KeyError, "train_dataloader has no 'sampler'"),
    ('train_dataloader.collate_fn.type', 'defaultcollate', "Did you mean 'default_collate'"),
    ('train_cfg.max_epoch', 1, 'train_cfg.max_epoch is no argument of EpochBasedTrainLoop'),
    ('train_cfg.by_epoch', KeyError, "train_cfg has neither 'type' nor 'by_epoch'"),
    ('optim_wrapper.constructor', 'RoleConstructor', 'optim_wrapper.constructor='),
    ('optim_wrapper', KeyError, "'train_dataloader' and 'train_cfg' without 'optim_wrapper'"),
    ('optim_wrapper.generator.optimizer.lrate', 1, 'lrate is no argument of Adam'),
    ('optim_wrapper.generator.optimizer', {}, "optim_wrapper.generator.optimizer has no 'type'"),
    ('optim_wrapper.student.optimizer.type', 'Sdg', "Did you mean 'SGD'"),
    ('optim_wrapper.student.clip_grads', 1, "Did you mean 'clip_grad'?"),
    ('param_scheduler.student.0.start_facto', 1, 'param_scheduler.student.0.start_facto is no'),
    ('param_scheduler.generator.T_max_', 1, 'is no argument of CosineAnnealingLR'),
    (
        'param_scheduler.generator',
        dict(type='LinearParamScheduler'),
        "param_scheduler.generator has no 'param_name', which LinearParamScheduler needs",
    ),
    (
        'default_hooks.checkpoint.intervall',
        1,
        'intervall is no argument of CheckpointHook. Did you',
    ),
    ('default_hooks.toy.type', KeyError, "default_hooks.toy has no 'type'"),
    ('custom_hooks.0.type', KeyError, "custom_hooks.0 has no 'type'"),
    ('custom_hooks.0.type', 'EmaHook', "Did you mean 'EMAHook'"),
    ('val_evaluator.0.top_k', 1, 'val_evaluator.0.top_k is no argument of ToyMetric. Did you mean'),
    ('val_evaluator', KeyError, "'val_dataloader' and 'val_cfg' without 'val_evaluator'"),
    ('log_processor.window', 1, "Did you mean 'window_size'?"),
    ('visualizer.vis_backends.0.type', 'TensorboardVis', "Did you mean 'TensorboardVisBackend'"),
    ('runner_type', 'DistilRunner', "Did you mean 'DistillRunner'"),
    ('model.student', 'student.pth', "model.student='student.pth': ToyDistiller needs a dict"),
    ('model.alignment', 3, 'Set its keys, model.alignment.KEY='),
    ('model', 'KD', "model='KD': give a dict"),
    ('train_cfg', 10, 'train_cfg=10: give a dict'),
    ('train_dataloader', 'my_pool', "train_dataloader='my_pool': give a dict"),
    ('train_dataloader.dataset', 'my_pool', 'a command line train_dataloader.dataset.type='),
    ('train_dataloader.batch_size', 0, 'train_dataloader.batch_size is 0'),
    ('train_dataloader.num_workers', -1, 'train_dataloader.num_workers is -1'),
    ('train_cfg.type', 'IterBasedTrainLoop', "and 'by_epoch'. Give one of them"),
    ('optim_wrapper.generator', 'Adam', "optim_wrapper.generator='Adam': give a dict"),
    ('optim_wrapper.generator.optimizer', 'Adam', 'optim_wrapper.generator.optimizer.type='),
    ('param_scheduler.generator', 'LinearLR', "param_scheduler.generator='LinearLR': give a"),
    ('val_evaluator', 'Accuracy', "val_evaluator='Accuracy': give a dict"),
    ('default_hooks.toy', 'ToyHook', "default_hooks.toy='ToyHook': give a dict"),
    ('default_hooks.logger', dict(type='LoggerHook', interval=0), 'logger.interval is 0; give 1'),
    ('default_hooks.logger', dict(type='LoggerHook', interval='x'), 'needs a whole number here'),
    ('default_hooks.logger', 'LoggerHook', "default_hooks.logger='LoggerHook': give a dict"),
    ('default_hooks', 'x', "default_hooks='x': give a dict, or set its keys, default_hooks.KEY="),
    ('custom_imports', 'x', "custom_imports='x': give a dict"),
    ('env_cfg', 'x', "env_cfg='x': give a dict"),
    ('randomness', 3, 'randomness=3: give a dict, or set its keys, randomness.KEY='),
    ('randomness', dict(seed=1.5), 'randomness.seed is 1.5; give a whole number'),
    ('randomness', dict(seed=-1), 'randomness.seed is -1; give a whole number from 0'),
    ('randomness', dict(seed=2**32), 'randomness.seed is 4294967296'),
    ('log_level', 'warning', "log_level='warning' is not known"),
    ('val_evaluator.0.type', 'Acuracy', "is not registered. Did you mean 'Accuracy'? ("),
    ('default_scope', 'mmdfk', "default_scope='mmdfk' is no installed library"),
    ('model', KeyError, "The config has no 'model'"),
    ('train_dataloaders', 1, "Nothing reads the key 'train_dataloaders'"),
    ('modle', 1, "Nothing reads the key 'modle'. Did you mean 'model'?"),
    ('lod_from', 1, "Did you mean 'load_from'?"),
    ('find_unused_parameter', 1, "Did you mean 'find_unused_parameters'?"),
    ('complie', 1, "Did you mean 'compile'?"),
    ('tta_modle', 1, "Did you mean 'tta_model'?"),
    ('auto_scale_lr', dict(enable=True), 'Add auto_scale_lr.base_batch_size='),
    ('tta_model', dict(type='AverageClsScoreTTA'), 'test.py --tta averages'),
]


@pytest.mark.parametrize(('key', 'value', 'message'), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_mistakes(key, value, message):
    cfg = toy()
    if key.startswith('train_dataloaders'):
        cfg.pop('train_dataloader')
    node = cfg
    *parents, last = key.split('.')
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    if value is KeyError:
        node.pop(last)
    else:
        node[last] = value
    with pytest.raises(UsageError) as error:
        check_config(cfg)
    assert message in str(error.value)


def test_types_may_be_classes_everywhere():
    cfg = toy()
    cfg.runner_type = DistillRunner
    cfg.optim_wrapper.constructor = RoleOptimWrapperConstructor
    check_config(cfg)


def test_a_constructor_of_ones_own_may_take_numbers():
    class OneRate:
        def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
            pass

    cfg = toy()
    cfg.optim_wrapper.update(constructor=OneRate, rate=0.1)
    check_config(cfg)
    cfg.optim_wrapper.constructor = RoleOptimWrapperConstructor
    with pytest.raises(UsageError, match=r'optim_wrapper\.rate=0\.1: give a dict'):
        check_config(cfg)


def test_checkpoints_take_no_key_that_nobody_knows():
    cfg = toy()
    cfg.default_hooks.checkpoint.max_keep = 2
    with pytest.raises(UsageError, match=r'max_keep is no argument of CheckpointHook. Did you mea'):
        check_config(cfg)


def test_augmentations_of_single_images_are_not_recommended():
    cfg = toy()
    cfg.model.data_preprocessor = dict(
        type='BatchPreprocessor', mean=[1.0], std=[2.0], augment=[dict(type='RandomFlip')]
    )
    import_module('mmcv.transforms')  # registers a RandomFlip of its own
    with pytest.raises(UsageError, match=r"RandomFlip' is not .* Did you mean 'BatchRandomFlip'"):
        check_config(cfg)


def test_name_of_another_library_gets_its_prefix():
    cfg = toy()
    cfg.model.student = dict(type='MobileNetV2', widen_factor=1.0)
    with pytest.raises(UsageError, match=r"Did you mean 'mmpretrain\.MobileNetV2'"):
        check_config(cfg)
    cfg.model.student.type = 'mmpretrain.MobileNetV2'
    check_config(cfg)
    cfg.model.student.widen_facter = 1
    with pytest.raises(UsageError, match=r"Did you mean 'widen_factor'"):
        check_config(cfg)


def test_a_library_that_lacks_another_is_not_called_absent(tmp_path, monkeypatch):
    (tmp_path / 'halfway').mkdir()
    (tmp_path / 'halfway/__init__.py').touch()
    (tmp_path / 'halfway/registry.py').write_text('import what_is_not_installed')
    monkeypatch.syspath_prepend(tmp_path)
    cfg = toy()
    cfg.default_scope = 'halfway'
    with pytest.raises(ModuleNotFoundError, match='what_is_not_installed'):
        check_config(cfg)


def test_scope_of_an_inherited_part():
    cfg = toy()
    cfg.model.student = dict(type='MobileNetV2', _scope_='mmpretrain')  # mmengine sets _scope_
    check_config(cfg)


def test_parts_of_a_model_may_be_completed_by_it():
    cfg = toy()
    del cfg.model.student['width']
    check_config(cfg)


def test_phase():
    cfg = toy()
    words = "cannot test: it has no 'test_dataloader' and 'test_cfg' and 'test_evaluator'"
    with pytest.raises(UsageError, match=words):
        check_config(cfg, 'test')
    cfg.update(test_dataloader=cfg.val_dataloader, test_evaluator=cfg.val_evaluator)
    cfg.test_cfg = dict(bf16=True)
    with pytest.raises(UsageError, match=r'test_cfg\.bf16 is no argument of TestLoop'):
        check_config(cfg, 'test')


@pytest.mark.parametrize(
    ('key', 'value', 'said'),
    [
        ('trian_cfg', dict(max_epochs=3), r"'trian_cfg'. Did you mean 'train_cfg'"),
        ('env_cfg.keep_memroy', True, r"env_cfg\.keep_memroy .*Did you mean 'keep_memory'"),
        ('auto_scale_lr.enabl', True, r"auto_scale_lr\.enabl .*Did you mean 'enable'"),
        (
            'optim_wrapper.student.clip_grad.max_nrm',
            1.0,
            r"clip_grad\.max_nrm .*clip_grad_norm_. Did you mean 'max_norm'",
        ),
        ('optim_wrapper.student.clip_grad.type', 'norms', r"clip_grad\.type='norms'.*'value'"),
        ('optim_wrapper.student.clip_grad', dict(max_norm='all'), r'max_norm.* a number'),
        ('data_preprocessor.foo', 1, r'data_preprocessor\.foo is no argument of BatchPreproc'),
        ('randomness.sede', 1, r"randomness\.sede is no .*Did you mean 'seed'"),
    ],
)
def test_keys_outside_of_classes(key, value, said):
    cfg = Config.fromfile(ROOT / 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py')
    cfg.merge_from_dict({key: value})
    with pytest.raises(UsageError, match=said):
        check_config(cfg)


def test_a_feature_loss_without_a_type():
    cfg = Config.fromfile(ROOT / 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py')
    networks = {role: cfg.model[role] for role in ('teacher', 'student')}
    cfg.model = dict(networks, type='KD', feature_losses=dict(maps=dict(type='HintLoss')))
    check_config(cfg)
    del cfg.model.feature_losses.maps['type']
    with pytest.raises(UsageError, match=r"model\.feature_losses\.maps has no 'type'"):
        check_config(cfg)


@pytest.mark.parametrize('clip', [dict(max_norm=5), dict(type='value', clip_value=0.1)])
def test_both_ways_to_clip_gradients(clip):
    cfg = Config.fromfile(ROOT / 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py')
    cfg.optim_wrapper.student.clip_grad = clip
    check_config(cfg)


@pytest.mark.parametrize(
    ('key', 'value', 'wanted'),
    [
        ('model.teacher_term', 'no', 'KD3 needs True or False'),
        ('model.teacher.mean', 127.5, 'Classifier needs a list of numbers or None'),
        ('train_cfg.max_epochs', 'all', 'EpochBasedTrainLoop needs a whole number'),
        ('train_dataloader.batch_size', '128', 'DataLoader needs a whole number or None'),
        ('optim_wrapper.student.optimizer.lr', 'fast', 'Adam needs a number'),
        ('default_hooks.speed.fold_teacher', 'yes', 'SpeedHook needs True or False'),
        ('randomness.seed', 'x', 'set_random_seed needs a whole number or None'),
        ('train_cfg.max_epochs', [1, 2], 'EpochBasedTrainLoop needs a whole number'),
        ('train_dataloader.batch_size', [64, 128], 'DataLoader needs a whole number or None'),
        ('optim_wrapper.student.optimizer.lr', (0.1, 0.2), 'Adam needs a number'),
        ('default_hooks.logger.interval', 'often', 'LoggerHook needs a whole number'),
        ('model.teacher_term', [True], 'KD3 needs True or False'),
        ('model.teacher.mean', ['a'], 'Classifier needs a list of numbers or None'),
    ],
)
def test_values_of_another_kind(key, value, wanted):
    cfg = Config.fromfile(ROOT / 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py')
    cfg.merge_from_dict({key: value})
    with pytest.raises(UsageError) as error:
        check_config(cfg)
    assert str(error.value) == f'{key}={value!r}: {wanted} here.'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(compile=True), "default_hooks.speed.compile=['teacher', 'student']"),
        (dict(custom_hooks=["{'type':'EMAHook'}"]), 'in a config file: a command line takes no'),
        (dict(custom_hooks='EMAHook'), "custom_hooks has 'EMAHook', which is no hook"),
        (
            dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))),
            'every role has its own here. Set optim_wrapper.student.optimizer',
        ),
    ],
)
def test_what_mmengine_has_for_one_role(change, words):
    cfg = load_config(ROOT / 'configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py')
    for key, value in change.items():
        cfg[key] = value
    with pytest.raises(UsageError) as error:
        check_config(cfg)
    assert words in str(error.value)


def test_nothing_to_delete_is_no_mistake(tmp_path):
    """KD3's selector is a default of the class, which no base states."""
    path = tmp_path / 'mine.py'
    path.write_text(
        f"_base_ = '{ROOT}/configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'\n"
        "model = dict(selector=dict(_delete_=True, type='RandomSelector', ratio=0.5))\n"
        "custom_hooks = [dict(_delete_=True, type='EMAHook')]\n"
    )
    cfg = load_config(path)
    check_config(cfg)
    assert cfg.model.selector == dict(type='RandomSelector', ratio=0.5)
    assert cfg.custom_hooks == [dict(type='EMAHook')]


def test_a_config_anywhere_inherits_by_the_prefix(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mmdfkd::kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits.py'\n"
    )
    code = 'import sys; from mmdfkd.utils.config_check import check_config; '
    code += 'from mmdfkd.utils.config_read import load_config; '
    code += 'cfg = load_config(sys.argv[1]); check_config(cfg); print(cfg.model.type)'
    command = [sys.executable, '-c', code, str(tmp_path / 'mine.py')]
    # In a process that has imported nothing else.
    assert subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout == 'KD3\n'
