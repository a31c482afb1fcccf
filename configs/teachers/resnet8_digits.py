# The teacher ResNet8, trained on the labelled digits. 2 CPU cores, under a minute:
#   python tools/train.py configs/teachers/resnet8_digits.py
_base_ = [
    '../_base_/networks/digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_sgd_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.resnet8)
# PyTorch's batches, with a small last one: those the shipped weights were made with.
train_dataloader = dict(batch_sampler=None)
