# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmdfkd.apis import export_student
from mmdfkd.models.classifiers import (
    ForeignClassifier,
    load_classifier,
    network_fingerprint,
    save_classifier,
)
from mmdfkd.registry import MODELS
from mmdfkd.utils import UsageError

STUDENTS = [
    ('resnet8_digits', 'pixels'),
    ('resnet8_digits', 'normalised'),
    ('lenet5_digits', 'pixels'),
]
# Run where mmdfkd cannot be imported.
READER = """
import sys
import torch
sys.modules['mmdfkd'] = None
folder = sys.argv[1]
images = torch.load(f'{folder}/images.pt')
results = {}
for name in sys.argv[2:]:
    path = f'{folder}/{name}'
    program = name.endswith('.pt2')
    network = torch.export.load(path).module() if program else torch.jit.load(path)
    given = images['pixels'] if 'pixels' in name else images['normalised']
    results[name] = [network(given).detach(), network(given[:1]).detach()]
assert not [name for name in sys.modules if name.startswith(('mmdfkd.', 'mmengine'))]
torch.save(results, f'{folder}/results.pt')
"""


def test_files_run_without_mmdfkd(tmp_path):
    """One process reads them all and gives the logits of the eager network."""
    pixels = torch.randint(0, 256, (7, 1, 32, 32), dtype=torch.uint8)
    normalised = (pixels.float() - 78.0) / 82.6  # both teachers' statistics
    torch.save(dict(pixels=pixels, normalised=normalised), tmp_path / 'images.pt')
    files = {}
    for name, kind in STUDENTS:
        for suffix in ('.pt', '.pt2'):
            file = tmp_path / f'{name}_{kind}{suffix}'
            assert export_student(f'mmdfkd://{name}', file, pixels=kind == 'pixels') == file
            files[file.name] = name
    subprocess.run([sys.executable, '-c', READER, str(tmp_path), *files], check=True, cwd=tmp_path)
    results = torch.load(tmp_path / 'results.pt')
    for file, name in files.items():
        with torch.no_grad():
            expected = load_classifier(f'mmdfkd://{name}').eval()(normalised)
        torch.testing.assert_close(results[file][0], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(results[file][1], expected[:1], rtol=1e-4, atol=1e-4)
        assert (results[file][0].argmax(1) == expected.argmax(1)).all()


@pytest.mark.skipif(
    torch.__version__.startswith('2.6.'), reason='onnxscript of today knows no PyTorch 2.6'
)
def test_onnx(tmp_path):
    pytest.importorskip('onnxscript')
    reference = pytest.importorskip('onnx.reference')
    file = export_student('mmdfkd://resnet8_digits', tmp_path / 'student.onnx')
    pixels = torch.randint(0, 256, (5, 1, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        network = load_classifier('mmdfkd://resnet8_digits').eval()
        expected = network((pixels.float() - 78.0) / 82.6)
    logits = reference.ReferenceEvaluator(str(file)).run(None, {'images': pixels.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ['student.onnx']


def test_onnx_is_no_dependency(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(UsageError, match='pip install onnx onnxscript'):
        export_student('mmdfkd://resnet8_digits', tmp_path / 'student.onnx')
    assert not list(tmp_path.iterdir())


# Other checkpoints of a run ---------------------------------------------------------------------


def checkpoint_of(network, **others):
    """What a training keeps of an epoch, as far as it matters here."""
    state = {f'student.{name}': tensor for name, tensor in network.state_dict().items()}
    return dict(meta=dict(epoch=3), state_dict=dict(state, other=torch.zeros(1)), **others)


def test_the_student_of_another_epoch(tmp_path):
    last, best = (load_classifier('mmdfkd://lenet5_digits') for _ in range(2))
    nn.init.zeros_(last.head.fc.weight)
    save_classifier(tmp_path / 'student.pth', last, dict(method='KD', accuracy=10.0))
    torch.save(checkpoint_of(best, optimizer={}), tmp_path / 'best_epoch_3.pth')
    file = export_student(tmp_path / 'best_epoch_3.pth', tmp_path / 'best.pth')
    assert network_fingerprint(load_classifier(file)) == network_fingerprint(best)
    meta = load_classifier(file).meta
    assert meta['method'] == 'KD' and 'accuracy' not in meta  # that is the last epoch's
    again = export_student(file, tmp_path / 'again.pth')
    assert load_classifier(again).meta == meta
    program = torch.jit.load(export_student(tmp_path / 'best_epoch_3.pth', tmp_path / 'best.pt'))
    images = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    expected = best.eval()((images.float() - 78.0) / 82.6)
    torch.testing.assert_close(program(images), expected, rtol=1e-4, atol=1e-4)


def test_a_module_of_the_callers_of_another_epoch(make_net, tmp_path):
    trained, best = make_net(1), make_net(3)
    save(trained, tmp_path)
    wrapped = ForeignClassifier(best, input_shape=(1, 16, 16), mean=[120.0], std=[60.0])
    torch.save(checkpoint_of(wrapped), tmp_path / 'epoch_3.pth')
    with pytest.raises(UsageError, match=r'student\.pth holds the weights of .*network=\.\.\.'):
        export_student(tmp_path / 'epoch_3.pth', tmp_path / 'best.pt')
    file = export_student(tmp_path / 'epoch_3.pth', tmp_path / 'best.pt', network=make_net(2))
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    expected = make_net(3).eval()((images.float() - 120.0) / 60)
    torch.testing.assert_close(torch.jit.load(file)(images), expected)


def test_nobody_describes_the_student_of_an_epoch(tmp_path):
    torch.save(checkpoint_of(load_classifier('mmdfkd://lenet5_digits')), tmp_path / 'epoch_3.pth')
    with pytest.raises(UsageError, match=r'student\.pth.* is not beside it.*go on with --resume'):
        export_student(tmp_path / 'epoch_3.pth', tmp_path / 'best.pth')


def test_the_tool(tmp_path):
    tool = Path(__file__).parents[2] / 'tools/model_converters/export_student.py'
    command = [sys.executable, tool, 'mmdfkd://lenet5_digits', tmp_path / 'net.pt', '--normalised']
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(tmp_path / 'net.pt')]
    images = torch.randn(2, 1, 32, 32)
    expected = load_classifier('mmdfkd://lenet5_digits').eval()(images)
    torch.testing.assert_close(torch.jit.load(tmp_path / 'net.pt')(images), expected)


# Students that were plain modules --------------------------------------------------------------


def save(network, folder):
    settings = dict(input_shape=(1, 16, 16), mean=[120.0], std=[60.0])
    save_classifier(folder / 'student.pth', ForeignClassifier(network, **settings), {})


def test_a_module_of_the_callers(make_net, tmp_path):
    trained, untrained = make_net(1).eval(), make_net(2)
    x = torch.randn(3, 1, 16, 16)
    expected = trained(x)
    save(trained, tmp_path)
    with pytest.raises(UsageError, match=r'weights of \S*:Net, .*network=\.\.\.'):
        export_student(tmp_path, tmp_path / 'student.pt')
    file = export_student(tmp_path, tmp_path / 'student.pt', pixels=False, network=untrained)
    torch.testing.assert_close(torch.jit.load(file)(x), expected)
    assert isinstance(untrained.out, nn.Linear) and untrained.training
    with pytest.raises(UsageError, match='made for 5 classes on 4 features'):
        export_student(tmp_path, tmp_path / 'student.pt', network=make_net(2, width=6))


def test_weights_of_the_module_do_not_matter(make_net, tmp_path):
    trained, broken = make_net(1).eval(), make_net(2)
    for tensor in broken.state_dict().values():
        tensor.fill_(float('nan') if tensor.is_floating_point() else 0)
    save(make_net(1), tmp_path)
    file = export_student(tmp_path, tmp_path / 'student.pt', pixels=False, network=broken)
    x = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(torch.jit.load(file)(x), trained(x))
    assert broken.out.weight.isnan().all()


class BatchDependent(nn.Module):
    """Does something that a trace does not see."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(256, 3)

    def forward(self, x):
        return self.out(x.flatten(1) * float(len(x)))


def test_what_gives_other_logits_is_not_written(tmp_path):
    save(BatchDependent(), tmp_path)
    (tmp_path / 'student.pt').write_text('an older file')
    with pytest.raises(UsageError, match=r'student\.pt would give other logits .* for 1 images'):
        export_student(tmp_path, tmp_path / 'student.pt', network=BatchDependent())
    assert (tmp_path / 'student.pt').read_text() == 'an older file'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['student.pt', 'student.pth']


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(256, 3)

    def forward(self, x):
        return self.out(x.flatten(1) if x.sum() > 0 else -x.flatten(1))


def test_what_a_format_cannot_hold(tmp_path):
    save(DataDependent(), tmp_path)
    with pytest.raises(
        UsageError, match=r'cannot write the student as \.pt2 .*Choose another of \.pt'
    ):
        export_student(tmp_path, tmp_path / 'student.pt2', network=DataDependent())


def test_mistakes(tmp_path):
    with pytest.raises(UsageError, match=r'one of the suffixes \.pt, \.pt2, \.onnx, \.pth'):
        export_student('mmdfkd://resnet8_digits', tmp_path / 'student.trt')
    with pytest.raises(UsageError, match=r'student\.pth. does not exist'):
        export_student(tmp_path, tmp_path / 'student.pt')


def test_a_classifier_of_mmpretrain_as_the_page_says(tmp_path):
    student = MODELS.build(
        dict(
            type='Classifier',
            backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18),
            head=dict(in_channels=512, num_classes=10),
            input_shape=(3, 32, 32),
            mean=[125.3, 123.0, 113.9],
            std=[63.0, 62.1, 66.7],
        )
    )
    student(torch.randn(8, 3, 32, 32))  # moves the statistics of batch norm
    save_classifier(tmp_path / 'student.pth', student.eval(), {})
    page = (Path(__file__).parents[2] / 'docs/en/user_guides/test.md').read_text()
    code = re.findall(r'```python\n(from mmengine.*?)```', page, re.DOTALL)[0]
    names = dict(student=student)
    exec(code.replace('my_run', str(tmp_path)), names)
    classifier = names['classifier'].eval()
    ours, theirs = student.state_dict(), classifier.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(t, theirs[n]) for n, t in ours.items())
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (student.mean, student.std))
    with torch.no_grad():
        samples = classifier.test_step(dict(inputs=images))
        scores = student((images - mean) / std).softmax(1)
    torch.testing.assert_close(torch.stack([sample.pred_score for sample in samples]), scores)
