# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import copy
import importlib
import json
import logging
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmdfkd.apis import distill
from mmdfkd.apis.methods import find_method, find_recipe
from mmdfkd.datasets import DigitsDataset, ImagePool, PackedDataset, write_pool
from mmdfkd.models.classifiers import Classifier, ForeignClassifier, load_classifier
from mmdfkd.utils import UsageError
from mmdfkd.utils.config_read import load_config

STATISTICS = dict(mean=[120.0], std=[60.0])
SHORT = {'train_cfg.max_epochs': 2, 'train_dataloader.batch_size': 32}
BACKBONE = dict(type='CifarResNet', depth=8, widths=(2, 2, 4), in_channels=1, stem_stride=2)
LATENTS = {'train_dataloader.dataset.length': 64}
BANK = {'train_dataloader.sampler.length': 64, 'model.iterations': 2, 'model.batch_size': 32}
GAN = {
    'param_scheduler.student': [],
    'train_cfg.val_begin': 2,
    'model.gan_epochs': 1,
    'model.num_synthetic': 32,
    'model.selector.num_select': 48,
    'train_dataloader.sampler.repeat': 1,
    'train_dataloader.sampler.passes': 1,
    'train_dataloader.batch_sampler.gan_batch_size': 32,
}


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Drawing takes longer than these runs."""
    monkeypatch.setattr('mmdfkd.engine.hooks.FigureHook.after_train', lambda *args: None)


@pytest.fixture
def evaluation(images):
    return images[:50], np.arange(50) % 5


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


# The call --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('method', 'student', 'options'),
    [
        ('DFND', 'module', {'model.teacher_accuracy': 'mean_confidence'}),
        ('KD3', 'config', {'model.selector.threshold': 0.3}),
        ('KD', 'module', {'model.alpha': 1.0}),
        ('STKD', 'module', {}),
        ('CTKD', 'module', {'model.scratch_teacher': 'student'}),
        ('DAFL', 'module', LATENTS),
        ('ZSKT', 'config', {**LATENTS, 'model.student_steps': 2}),
        ('DeepInversion', 'module', BANK),
        ('HiDFD', 'config', GAN),
    ],
)
def test_distils(method, student, options, teacher, make_net, images, evaluation, tmp_path):
    teacher.train()
    teacher.first[1].eval()
    teacher.out.bias.requires_grad_(False)
    before = state(teacher)
    modes = [module.training for module in teacher.modules()]
    wants_grad = [parameter.requires_grad for parameter in teacher.parameters()]

    config = dict(backbone=BACKBONE, head=dict(in_channels=4, num_classes=5))
    student = make_net(2) if student == 'module' else config
    untrained = state(student) if isinstance(student, nn.Module) else copy.deepcopy(student)
    if 'model.scratch_teacher' in options:
        options = {'model.scratch_teacher': config}
    if method == 'HiDFD':  # its GAN wants 32 pixels
        images, *shown = (x.repeat(2, 1).repeat(2, 2) for x in (images, evaluation[0]))
        evaluation = (*shown, evaluation[1])
    if method in ('STKD', 'CTKD'):
        images = PackedDataset(images, np.arange(96) % 5, dict(name='mine'))
    result = distill(
        teacher,
        student,
        None if {*LATENTS, *BANK} & {*options} else images,
        method=method,
        evaluation=evaluation,
        options={**SHORT, **options},
        work_dir=tmp_path / 'run',
        **STATISTICS,
    )

    # The caller's networks are as they were.
    assert same(before, state(teacher)) and isinstance(teacher.out, nn.Linear)
    assert modes == [module.training for module in teacher.modules()]
    assert wants_grad == [parameter.requires_grad for parameter in teacher.parameters()]
    assert all(p.grad is None and not p._backward_hooks for p in teacher.parameters())
    assert not any(module._forward_hooks for module in teacher.modules())

    # The student is one of the kind that was given, trained, and that of the file.
    if isinstance(student, nn.Module):
        assert same(untrained, state(student)) and student.training
        assert type(result.student) is type(student)
        assert untrained.keys() == result.student.state_dict().keys()
        assert not same(untrained, state(result.student))
    else:
        assert untrained == student and type(result.student) is Classifier
        assert same(state(load_classifier(tmp_path / 'run/student.pth')), state(result.student))
    assert not any(module.training for module in result.student.modules())

    # What is said of it is true: counted again here.
    with torch.no_grad():
        x = (torch.from_numpy(evaluation[0]).permute(0, 3, 1, 2).float() - 120) / 60
        guess, truth = result.student(x).argmax(1), torch.from_numpy(evaluation[1])
        agrees = guess == teacher.eval()(x).argmax(1)
    assert result.accuracy == pytest.approx(100 * (guess == truth).double().mean().item())
    assert result.agreement == pytest.approx(100 * agrees.double().mean().item())
    assert result.work_dir == tmp_path / 'run' and result.seconds > 0
    assert result.summary == json.loads((tmp_path / 'run/summary.json').read_text())
    assert result.summary['method'] == method and result.summary['finished']


def test_images_only(teacher, make_net, images, tmp_path, monkeypatch):
    """No evaluation set, no folder: the recipe's own sets are not opened."""
    monkeypatch.chdir(tmp_path)
    opened = 'mmdfkd.datasets.digits.DigitsDataset.__init__'
    monkeypatch.setattr(opened, lambda *args, **kwargs: pytest.fail('opened original data'))
    options = {**SHORT, 'model.alpha': 1.0}
    result = distill(
        teacher, make_net(2), images, method='KD', options=options, seed=np.int64(3), **STATISTICS
    )
    assert result.accuracy is None and result.agreement is None
    assert result.summary['seed'] == 3
    assert str(result.work_dir) == 'work_dirs/distill/kd_resnet8_resnet8-half_1xb64-60e_digits'


def distill_by_kd(teacher, student, images, work_dir, **options):
    options = {**SHORT, 'model.alpha': 1.0, **options}
    return distill(
        teacher, student, images, method='KD', options=options, work_dir=work_dir, **STATISTICS
    )


def test_crops_are_as_large_as_the_images(teacher, make_net, images, tmp_path):
    """Those of the recipe have 32 pixels; the record has what was done."""
    distill_by_kd(teacher, make_net(2), images, tmp_path)
    record = load_config(next(tmp_path.glob('kd_*.py')))
    assert record.data_preprocessor.augment[0] == dict(
        type='BatchRandomCrop', size=(16, 16), padding=4
    )


@pytest.mark.parametrize(
    'change',
    [
        {'data_preprocessor.augment.0.size': 12},
        {'data_preprocessor.augment': [dict(type='BatchRandomCrop', size=12, padding=0)]},
    ],
)
def test_crops_of_a_size_that_is_asked_for(change, teacher, make_net, images, tmp_path):
    """They are made, so that the teacher can say what it thinks of them."""
    with pytest.raises(UsageError, match='has 1x12x12 images, the teacher expects 1x16x16'):
        distill_by_kd(teacher, make_net(2), images, tmp_path, **change)


def test_the_record_says_which_images(make_net, images, tmp_path):
    """A share of a pool, and one split of a set: neither their folder nor their name tells."""
    write_pool(tmp_path / 'pool', images, 'pool')
    pool, tests = ImagePool(tmp_path / 'pool', ratio=0.5), DigitsDataset('test', image_size=16)
    distill(
        make_net(1, num_classes=10),
        make_net(2, num_classes=10),
        pool,
        method='KD',
        evaluation=tests,
        options={**SHORT, 'model.alpha': 1.0},
        work_dir=tmp_path / 'run',
        **STATISTICS,
    )
    record = load_config(next((tmp_path / 'run').glob('kd_*.py')))
    for phase, known in dict(train=pool, val=tests).items():
        dataset = record[f'{phase}_dataloader'].dataset
        assert dataset.num_images == len(known) and dataset.content_hash == known.content_hash


def test_the_log_ends_with_the_run(teacher, make_net, images, tmp_path):
    distill(
        teacher,
        make_net(2),
        images,
        method='KD',
        options={**SHORT, 'model.alpha': 1.0},
        work_dir=tmp_path,
        **STATISTICS,
    )
    (log,) = tmp_path.glob('*/*.log')
    logger, text = MMLogger.get_current_instance(), log.read_text()
    assert 'Epoch(train)' in text
    assert not any(isinstance(handler, logging.FileHandler) for handler in logger.handlers)
    logger.info('of another run')
    assert log.read_text() == text


def test_a_foreign_classifier_says_more(teacher, make_net, images, tmp_path):
    """Maps that methods compare, and sizes that images are brought to."""
    settings = dict(input_shape=(1, 16, 16), **STATISTICS)
    result = distill(
        ForeignClassifier(copy.deepcopy(teacher), maps=['first', 'second'], size=24, **settings),
        ForeignClassifier(make_net(2), maps=['first', 'second'], size=24, **settings),
        images,
        method='KD',
        options={
            **SHORT,
            'model.alpha': 1.0,
            'model.feature_losses': dict(look=dict(type='AttentionTransferLoss', indices=[0, 1])),
        },
        work_dir=tmp_path,
    )
    assert isinstance(result.student, ForeignClassifier) and result.student.size == 24
    assert result.student(torch.randn(2, 1, 16, 16)).shape == (2, 5)


def test_layers_of_the_recipes_teacher_are_not_asked_for(tmp_path, monkeypatch):
    """CMI's recipe names those of a ResNet34; others have BatchNorm layers."""
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4, 5),
    )
    heads = []
    monkeypatch.setattr(
        'mmdfkd.apis.distillation.DistillRunner.train',
        lambda runner: (heads.append(runner.model.head), 1 / 0),
    )
    with pytest.raises(ZeroDivisionError):
        distill(
            network,
            network,
            method='CMI',
            input_shape=(3, 16, 16),
            mean=[120.0] * 3,
            std=[60.0] * 3,
            work_dir=tmp_path,
        )
    assert heads[0].linear.in_features == 4


def test_a_failure_ends_its_bars(teacher, make_net, images, tmp_path, monkeypatch):
    bar = Mock()
    monkeypatch.setattr('mmdfkd.utils.progress._running', [bar])
    monkeypatch.setattr('mmdfkd.apis.distillation.DistillRunner.train', lambda runner: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        distill_by_kd(teacher, make_net(2), images, tmp_path)
    bar.stop.assert_called_once()


# The same run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(('method', 'given'), [('DFND', 'module'), ('KD3', 'config')])
def test_same_bits_as_the_tool(
    method, given, teacher, make_net, images, evaluation, tmp_path, monkeypatch, run_tool
):
    """``tools/train.py`` with a config that describes these networks and images."""
    np.savez(tmp_path / 'evaluation.npz', images=evaluation[0], labels=evaluation[1])
    write_pool(tmp_path / 'pool', images, 'images')
    (tmp_path / f'described_{method}.py').write_text(
        'import copy\n'
        'import numpy as np\n'
        'from mmdfkd.datasets import PackedDataset\n'
        'from mmdfkd.registry import DATASETS\n'
        'networks = {}\n'
        'def network(name):\n'
        '    return copy.deepcopy(networks[name])\n'
        '@DATASETS.register_module(force=True)\n'
        'class Tests(PackedDataset):\n'
        '    def __init__(self):\n'
        f"        super().__init__(**np.load('{tmp_path}/evaluation.npz'))\n"
    )
    foreign = (
        f"dict(_delete_=True, type='ForeignClassifier', source='described_{method}:network', "
        "pretrained=True, arguments=dict(name='{}'), input_shape=(1, 16, 16), mean=[120.0], "
        'std=[60.0])'
    )
    config = dict(backbone=BACKBONE)
    student = foreign.format('student') if given == 'module' else {**config, '_delete_': True}
    recipe = find_recipe(find_method(method), None, 1)
    method_option = 'teacher_accuracy=0.9' if method == 'DFND' else 'selector=dict(threshold=0.3)'
    (tmp_path / 'mine.py').write_text(
        f'_base_ = {str(recipe)!r}\n'
        f"custom_imports = dict(imports=['described_{method}'])\n"
        f'model = dict(teacher={foreign.format("teacher")}, student={student}, {method_option})\n'
        "train_dataloader = dict(dataset=dict(_delete_=True, type='ImagePool', "
        f"root='{tmp_path}/pool'), batch_size=32)\n"
        "val_dataloader = dict(dataset=dict(_delete_=True, type='Tests'))\n"
        'data_preprocessor = dict(augment=[dict(type="BatchRandomCrop", size=16, padding=4)])\n'
        'train_cfg = dict(max_epochs=2)\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    described = importlib.import_module(f'described_{method}')
    described.networks.update(teacher=teacher, student=make_net(2))
    work_dir = tmp_path / 'tool'
    run_tool('train.py', tmp_path / 'mine.py', '--work-dir', work_dir, '--seed', 5)

    key, _, value = method_option.partition('=')
    result = distill(
        teacher,
        make_net(2) if given == 'module' else config,
        tmp_path / 'pool' if method == 'KD3' else images,
        method=method,
        evaluation=evaluation,
        options={**SHORT, f'model.{key}': eval(value)},
        work_dir=tmp_path / 'call',
        seed=5,
        **STATISTICS,
    )
    files = [torch.load(tmp_path / run / 'student.pth') for run in ('tool', 'call')]
    assert same(files[0]['state_dict'], files[1]['state_dict'])
    expected = json.loads((work_dir / 'summary.json').read_text())
    for key in ('student_accuracies', 'agreement', 'teacher_accuracy', 'images_used', 'seed'):
        assert result.summary[key] == expected[key]


def test_resumes(teacher, make_net, images, tmp_path, monkeypatch):
    """A run that is stopped after two of four epochs and one that is not."""

    def run(work_dir, **more):
        options = {**SHORT, 'model.teacher_accuracy': 0.9, 'train_cfg.max_epochs': 4}
        return distill(
            teacher,
            make_net(2),
            images,
            method='DFND',
            options=options,
            work_dir=tmp_path / work_dir,
            **STATISTICS,
            **more,
        )

    def stop(hook, runner):
        if runner.epoch == 2:
            raise KeyboardInterrupt

    whole = run('whole')
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr('mmdfkd.engine.hooks.SpeedHook.before_train_epoch', stop)
        run('parts')
    resumed = run('parts', resume=True)
    assert same(state(whole.student), state(resumed.student))
    assert resumed.summary['images_seen'] == whole.summary['images_seen']


def test_resumes_from_a_path(teacher, make_net, images, tmp_path):
    still = {'optim_wrapper.student.optimizer.lr': 0.0}
    distill_by_kd(teacher, make_net(2), images, tmp_path / 'first', **still)
    result = distill(
        teacher,
        make_net(3),
        images,
        method='KD',
        options={**SHORT, 'model.alpha': 1.0, **still, 'train_cfg.max_epochs': 3},
        work_dir=tmp_path / 'second',
        resume=tmp_path / 'first/epoch_2.pth',
        **STATISTICS,
    )
    assert torch.equal(result.student.out.weight, make_net(2).out.weight)
    assert result.summary['epoch'] == 3


def test_nothing_to_resume_from_and_a_shape_of_numpys(teacher, make_net, images, tmp_path):
    result = distill(
        teacher,
        make_net(2),
        images,
        method='KD',
        options={**SHORT, 'model.alpha': 1.0},
        work_dir=tmp_path,
        input_shape=np.array([1, 16, 16]),
        resume=None,
        **STATISTICS,
    )
    assert result.summary['finished']


def test_a_student_keeps_the_weights_it_has(teacher, images, tmp_path):
    """Backbones of other libraries have an init_cfg, which is for new ones."""
    backbone = dict(type='mmpretrain.ResNet_CIFAR', depth=18, in_channels=1, base_channels=4)
    config = dict(
        backbone=dict(backbone, stem_channels=4), head=dict(in_channels=32, num_classes=5)
    )
    shape = dict(input_shape=(1, 16, 16), **STATISTICS)
    student = Classifier(**config, **shape)
    before = [weight.clone() for weight in student.parameters()]
    still = {'optim_wrapper.student.optimizer.lr': 0.0}
    result = distill_by_kd(teacher, student, images, tmp_path, **still)
    assert all(map(torch.equal, before, result.student.parameters()))


def test_a_student_of_another_library_by_its_config(teacher, images, tmp_path):
    config = dict(type='ForeignClassifier', source='test_distillation:small_network', num_classes=5)
    result = distill_by_kd(teacher, config, images, tmp_path)
    assert isinstance(result.student, ForeignClassifier)
    assert result.student(torch.randn(2, 1, 16, 16)).shape == (2, 5)


def small_network(num_classes):
    layers = nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4, num_classes))


def test_layers_of_the_recipes_teacher_and_those_of_ours(tmp_path):
    teacher = Classifier(
        dict(type='CifarResNet', depth=8, widths=(2, 2, 4)),
        dict(in_channels=4, num_classes=5),
        input_shape=(3, 16, 16),
        mean=[120.0] * 3,
        std=[60.0] * 3,
    )
    options = {'train_cfg.max_epochs': 1, **BANK, 'model.bank_size': 32, 'model.negatives': 8}
    student = dict(teacher.config, input_shape=None, mean=None, std=None)
    result = distill(teacher, student, method='CMI', options=options, work_dir=tmp_path, seed=1)
    assert result.summary['method'] == 'CMI'


# Mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'problem'),
    [
        (dict(method='kd-3'), r"method='kd-3' is not known. Did you mean 'KD3'"),
        (dict(images=None), r'images: DFND learns from collected images and got none'),
        (dict(method='DAFL'), r'images: DAFL makes its own images. Leave them out'),
        (dict(method='DAFL', images=None), r'input_shape: there are neither images'),
        (dict(mean='imagenet'), r"mean='imagenet' and std=.*: give numbers"),
        (dict(seed=-1), r'seed is -1; give a whole number from 0'),
        (dict(options=['a=1']), r"options: give a dict, such as \{'train_cfg"),
        (dict(input_shape=16), r'input_shape=16: give \(C, H, W\)'),
        (dict(input_shape=(16, 16, 1)), r'input_shape=\(16, 16, 1\): give \(C, H, W\)'),
        (dict(mean=[0.47], std=[0.24]), r'mean=\[0\.47\] .* units of 0 to 255.*by 255'),
        (dict(input_shape=(3, 16, 16)), r'mean has 1 .* the images have 3 channels'),
        (dict(method='KD3'), r'model\.student is a network that is built.*dict\(backbone'),
        (dict(method='HiDFD'), r'model\.student is a network that is built'),
        (dict(recipe='kd3_resnet8_resnet8-half_1xb128-40e_digits'), r'recipe: .* one of KD3, not'),
        (dict(recipe='missing.py'), r'no config file missing\.py'),
        (
            dict(options={'model.teacher.name': 'T'}),
            r'model\.teacher\.name is what the argument teacher',
        ),
        (dict(options={'val_dataloader.batch_size': 2}), r'options: val_.*an evaluation set'),
        (dict(options={'work_dir': 'other'}), r'work_dir is what the argument work_dir gives'),
        (dict(options={'resume': True}), r'resume is what the argument resume gives'),
        (dict(options={'load_from': 'my.pth'}), r'load_from is what the argument student gives'),
        (
            dict(options={'randomness': dict(seed=1)}, seed=2),
            r'randomness\.seed is what the argument seed gives',
        ),
        (dict(options={'launcher': 'pytorch'}), r'options: launcher: .*one process.*tools/train'),
        (dict(options={'experiment_name': 'E'}), r'options: experiment_name is set by distill'),
        (
            dict(options={'train_dataloader': dict(dataset=dict(type='DigitsDataset'))}),
            r'train_dataloader\.dataset\.type is what the argument images gives',
        ),
        (
            dict(options={'train_cfgs.max_epochs': 1}),
            r"^options train_cfgs.*Did you mean 'train_cfg'",
        ),
        (dict(options={'model.divergence': 2}), r'model\.divergence is no argument of DFND'),
        (dict(student=dict(bakbone=BACKBONE)), r"bakbone is no argument of Classifier.*'backbone'"),
        (dict(student={}), r'student: the config has no backbone\. Add'),
        (dict(student={}, method='KD3'), r'student: the config has no backbone\. Add'),
        (dict(student=dict(backbone='CifarResNet')), r"student\.backbone='CifarResNet': .* a dict"),
        (dict(student=dict(backbone=BACKBONE)), r'student: DFND needs the head .*Add head=dict'),
        (
            dict(student=dict(backbone=BACKBONE, head=dict(num_classes=5))),
            r'student: DFND needs the head .*Add head=dict\(in_channels',
        ),
        (dict(work_dir=__file__), r"^work_dir='.*' cannot be a folder \(File exists\)\. Choose"),
        (dict(evaluation=[1, 2]), r'evaluation: found list'),
    ],
)
def test_mistakes(change, problem, teacher, make_net, images, tmp_path):
    arguments = dict(student=make_net(2), images=images, method='DFND', **STATISTICS)
    with pytest.raises(UsageError, match=problem):
        distill(teacher, **{**arguments, 'work_dir': tmp_path / 'run', **change})
    assert not (tmp_path / 'run/student.pth').exists()


def test_the_accuracy_in_a_recipe_is_that_of_another_teacher(tmp_path):
    """The published recipe of DFND has the accuracy of the authors' ResNet34."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    with pytest.raises(UsageError, match=r'model\.teacher_accuracy'):
        distill(
            network,
            copy.deepcopy(network),
            np.zeros((4, 16, 16, 3), np.uint8),
            method='DFND',
            mean=[120.0] * 3,
            std=[60.0] * 3,
            work_dir=tmp_path,
        )


@pytest.mark.parametrize('argument', ['images', 'evaluation'])
def test_labels_the_teacher_does_not_know(argument, teacher, make_net, images, tmp_path):
    labelled = {'images': images, argument: (images, np.arange(96) % 10)}
    with pytest.raises(UsageError, match=rf'{argument}: there are labels up to 9, .* 5 classes'):
        distill(
            teacher,
            make_net(2),
            method='DFND',
            work_dir=tmp_path,
            **labelled,
            **STATISTICS,
        )


def test_several_processes_are_refused(teacher, make_net, images, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(UsageError, match=r'distill\(\) is one process.*tools/train\.py'):
        distill(teacher, make_net(2), images, method='DFND', **STATISTICS)


def test_a_student_of_other_classes(teacher, make_net, images, tmp_path):
    options = {'model.teacher_accuracy': 0.9}
    with pytest.raises(UsageError, match=r'model\.teacher has 5 classes, model\.student has 7'):
        distill(
            teacher,
            make_net(2, num_classes=7),
            images,
            method='DFND',
            options=options,
            work_dir=tmp_path,
            **STATISTICS,
        )
