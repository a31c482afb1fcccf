# FastDFKD on the embedded benchmark: resnet8 teaches resnet8-half, and no image is read.
#   python tools/train.py configs/fast_dfkd/fast_dfkd_resnet8_resnet8-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/digits_bank.py',
    '../_base_/schedules/bank_digits.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(generator=dict(optimizer=dict(type='Adam', lr=2e-2, betas=(0.5, 0.999))))

model = dict(
    type='FastDFKD',
    generator=_base_.generators.digits_sigmoid,
    # Fewer rounds than published, so longer steps and more of them.
    optimizer=dict(lr=1e-2),
    latent_lr=0.05,
    iterations=10,
    batch_size=96,
    warmup_rounds=10,
    class_weight=4.0,
    flip=False,
)
