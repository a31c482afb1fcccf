# CMI on the embedded benchmark: resnet8 teaches resnet8-half, and no image is read.
#   python tools/train.py configs/cmi/cmi_resnet8_resnet8-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/digits_bank.py',
    '../_base_/schedules/bank_digits.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(head=dict(optimizer=dict(type='Adam', lr=1e-3)))

model = dict(
    type='CMI',
    generator=_base_.generators.digits_sigmoid,
    # Ten times the published rate: a new generator begins with grey, and steps are few.
    optimizer=dict(lr=1e-2),
    iterations=40,
    batch_size=96,
    # All features of 20 rounds fit.
    bank_size=20 * 96,
    negatives=2 * 96,
    head_channels=64,
    flip=False,
)
