# DFAD and DDAD at the scale of a CPU: 15,000 student steps instead of 125,000, on half a batch with
# half the learning rate, in bfloat16. The learning rates fall at the same shares of the run.
_base_ = './dfad_500e.py'

optim_wrapper = dict(
    student=dict(type='AutocastOptimWrapper', optimizer=dict(lr=0.05)),
    generator=dict(type='AutocastOptimWrapper'),
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[20, 40], gamma=0.1, by_epoch=True)],
    generator=[dict(type='MultiStepLR', milestones=[20, 40], gamma=0.1, by_epoch=True)],
)
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=128)
