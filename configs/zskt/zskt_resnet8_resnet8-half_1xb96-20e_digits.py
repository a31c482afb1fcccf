# ZSKT on the embedded benchmark: resnet8 teaches resnet8-half, and no image is read.
#   python tools/train.py configs/zskt/zskt_resnet8_resnet8-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/digits_latents.py',
    '../_base_/schedules/adversarial_digits.py',
    '../_base_/default_runtime.py',
]

maps = dict(backbone=dict(out_indices=(0, 1, 2)))
model = dict(
    type='ZSKT',
    teacher=maps,
    student=maps,
    generator=_base_.generators.digits_smooth,
    # A quarter of the paper's 250, as the stem's stride makes maps a quarter as large as there.
    attention=dict(loss_weight=60.0),
)
clip = dict(max_norm=5)
optim_wrapper = dict(
    student=dict(optimizer=dict(_delete_=True, type='Adam', lr=2e-3), clip_grad=clip),
    # A tenth of the code's learning rate: a fast generator leaves the student behind.
    generator=dict(optimizer=dict(lr=1e-4), clip_grad=clip),
)
