# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

from mmdfkd.apis.quick import make_quick
from mmdfkd.datasets import QuickDataset
from mmdfkd.models.classifiers import ForeignClassifier, build_teacher, load_classifier
from mmdfkd.registry import DATASETS
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_read import load_config

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Shrink a config where there are no data and no checkpoints."""
    monkeypatch.chdir(tmp_path)

    def shrink(name, **options):
        cfg = load_config(CONFIGS / f'{name}.py', options)
        init_default_scope(cfg.default_scope)
        cfg.work_dir = str(tmp_path / 'run')
        return make_quick(cfg)

    return shrink


# Multiply-adds of the teacher: 0.4 M; 41 M: 3e9 / 40,813,184 = 73; 1159 M: 2, so the least
@pytest.mark.parametrize(
    ('name', 'images', 'batch'),
    [
        ('kd3/kd3_lenet5_lenet5-half_1xb128-40e_mnist', 256, 32),
        ('kd3/kd3_resnet20_resnet8_1xb1024-240e_cifar10', 73, 32),
        ('kd3/kd3_resnet34_resnet18_1xb1024-240e_cifar100', 8, 4),
        ('teachers/resnet34_tiny-imagenet', 8, 4),
    ],
)
def test_large_networks_get_few_images(quick, name, images, batch):
    cfg = quick(name)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        assert loader.dataset.num_images == images
        assert loader.batch_size == batch
    assert cfg.train_cfg.max_epochs == 2
    assert cfg.work_dir.endswith('quick/run')


def test_what_is_smaller_stays(quick):
    options = {
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 10,
        'train_dataloader.batch_size': 8,
        'train_dataloader.num_workers': 2,
        'train_dataloader.persistent_workers': True,
    }
    cfg = quick('kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits', **options)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (1, 1)
    loader = cfg.train_dataloader
    assert (loader.batch_size, loader.num_workers) == (8, 0)
    assert 'persistent_workers' not in loader  # which PyTorch refuses without workers


@pytest.mark.parametrize(('stage', 'gan_epochs'), [('74e', 1), ('10e-gan', 2), ('64e-student', 1)])
def test_the_stages_of_a_gan_are_short(quick, stage, gan_epochs):
    cfg = quick(f'hidfd/hidfd_resnet8_resnet8-half_1xb64-{stage}_digits')
    assert cfg.model.gan_epochs == gan_epochs  # whose images are not here, it makes some
    assert cfg.train_dataloader.dataset.synthetic.type == 'ImageBank'
    assert cfg.model.num_synthetic == 256 and cfg.model.selector.num_select == 128
    assert cfg.train_dataloader.sampler.repeat == cfg.train_dataloader.sampler.passes == 1
    assert cfg.train_dataloader.batch_sampler.gan_batch_size == 32
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.get('val_begin')) == (2, None)
    assert all(schedule.begin == 0 for schedule in cfg.param_scheduler.get('student', ()))


def test_random_images_stand_in(quick):
    cfg = quick('kd3/kd3_wrn-40-2_wrn-16-1_1xb1024-240e_tiny-imagenet')
    pool, labelled = (DATASETS.build(cfg[f'{s}_dataloader'].dataset) for s in ('train', 'val'))
    assert pool.images.shape == labelled.images.shape == (8, 64, 64, 3)
    assert pool.labels is None  # as a pool has none
    assert labelled.labels.max() > 10  # of 200 classes
    assert 'random images for ImagePool' in pool.metainfo['name']


def test_latents_stay_latents(quick):
    cfg = quick('dafl/dafl_resnet34_resnet18_1xb1024-2000e_cifar10')
    assert cfg.train_dataloader.dataset == dict(type='LatentDataset', length=8)
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.train_dataloader.sampler.type == 'CountingSampler'
    assert DATASETS.build(cfg.val_dataloader.dataset).images.shape == (8, 32, 32, 3)


def test_a_share_of_few_latents_is_two(quick):
    cfg = quick('pre_dfkd/pre_dfkd_resnet34_resnet18_1xb1024-400e_cifar10')
    assert cfg.train_dataloader.batch_size == 4
    assert (cfg.model.replay_ratio, cfg.model.memory_ratio) == (2, 2)
    cfg = quick('pre_dfkd/pre_dfkd_resnet8_resnet8-half_1xb96-20e_digits')
    assert cfg.train_dataloader.batch_size == 32
    assert (cfg.model.replay_ratio, cfg.model.memory_ratio) == (8, 2)  # as they are


def test_a_bank_stays_a_bank(quick):
    cfg = quick('deepinversion/deepinversion_wrn-40-2_wrn-16-1_1xb256-200e_cifar10')
    assert cfg.train_dataloader.dataset == dict(type='ImageBank')
    # 327.6 M multiply-adds: 3e9 / 327.6e6 = 9 images, in batches of 4
    assert cfg.train_dataloader.sampler == dict(type='BankSampler', length=9)
    assert (cfg.model.batch_size, cfg.model.iterations) == (4, 4)
    assert (cfg.model.rounds, cfg.model.warmup_rounds) == (1, 1)


def test_random_teacher_stands_in(quick):
    cfg = quick('kd3/kd3_resnet20_resnet8_1xb1024-240e_cifar10')
    teacher = load_classifier(cfg.model.teacher.checkpoint)
    assert teacher.name == 'ResNet20' and teacher.num_classes == 10
    assert 'run' in Path(cfg.model.teacher.checkpoint).parts
    assert not Path('work_dirs').exists()


def test_what_is_there_is_used(quick, tmp_path):
    cfg = quick('kd3/kd3_lenet5_lenet5-half_1xb128-40e_digits')
    assert cfg.model.teacher.checkpoint == 'mmdfkd://lenet5_digits'
    digits = DATASETS.build(cfg.val_dataloader.dataset)
    assert isinstance(digits, QuickDataset) and digits.metainfo['classes']


@pytest.mark.parametrize('checkpoint', [{}, dict(checkpoint='work_dirs/none.pth')])
def test_nothing_is_downloaded(quick, monkeypatch, checkpoint):
    def download(*args, **kwargs):
        raise AssertionError('a quick run went to the network')

    monkeypatch.setattr('torch.hub.load_state_dict_from_url', download)
    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url', download)
    teacher = dict(
        type='ForeignClassifier',
        source='torchvision',
        model='shufflenet_v2_x0_5',
        pretrained=True,
        input_shape=(3, 32, 32),
        std=[60.0, 60.0, 60.0],
        _delete_=True,
        **checkpoint,
    )
    cfg = quick('kd3/kd3_resnet20_resnet8_1xb1024-240e_cifar10', **{'model.teacher': teacher})
    built = build_teacher(cfg.model.teacher)
    assert isinstance(built, ForeignClassifier)
    assert built.size == 224 and built.mean == [123.675, 116.28, 103.53]  # as its weights say
    assert built.std == [60.0, 60.0, 60.0]  # as the config says
    assert cfg.val_dataloader.dataset.num_classes == 1000


def test_a_teacher_that_is_only_a_missing_file_is_missed(quick):
    with pytest.raises(UsageError, match=r'none\.pth.*does not exist'):
        quick(
            'kd3/kd3_resnet20_resnet8_1xb1024-240e_cifar10',
            **{'model.teacher': dict(checkpoint='none.pth', _delete_=True)},
        )


def test_a_collection_by_share_becomes_one_by_number(quick):
    options = {'model.selector': dict(keep_ratio=0.01)}
    selector = quick('hidfd/hidfd_resnet34_resnet18_1xb64-640e_cifar10', **options).model.selector
    assert selector == dict(num_select=4)


def test_hooks_look_at_no_more_images_than_there_are(quick):
    name = 'hidfd/hidfd_resnet34_resnet18_1xb64-640e_tiny-imagenet'  # ten of a class were 2,000
    hooks = quick(name).default_hooks
    assert hooks.samples == dict(type='SampleHook', count=8, per_class=0)
    assert hooks.gan == dict(type='GANHook', count=8)
    hooks = quick(name, **{'default_hooks.samples': None}).default_hooks
    assert hooks.samples is None
