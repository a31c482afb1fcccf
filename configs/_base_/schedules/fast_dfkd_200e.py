# FastDFKD: 200 epochs, each after one round of synthesis of five steps. The learning rate of the
# meta generator is five times that of its copies.
_base_ = './bank_200e.py'

optim_wrapper = dict(
    student=dict(optimizer=dict(lr=0.2)),
    generator=dict(optimizer=dict(type='Adam', lr=1.5e-2, betas=(0.5, 0.999))),
)
param_scheduler = dict(
    student=[dict(type='CosineAnnealingLR', T_max=200, eta_min=2e-4, by_epoch=True)]
)
