# DeepInversion on the embedded benchmark: resnet8 teaches resnet8-half, and no image is read.
# python tools/train.py configs/deepinversion/deepinversion_resnet8_resnet8-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/datasets/digits_bank.py',
    '../_base_/schedules/bank_digits.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='DeepInversion',
    batch_size=96,
    iterations=100,
    warmup_rounds=4,  # a bank of one round is too small to begin with
    optimizer=dict(lr=0.2),
    bn_statistics=dict(loss_weight=1.0),
    compete=dict(loss_weight=1.0),
)
