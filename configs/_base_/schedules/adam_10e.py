# A schedule for students on real images on a CPU: Adam with cosine decay over 10 epochs, batches of
# 128, bfloat16. Far shorter than the papers' (240 epochs), so its numbers stand beside each other,
# not beside theirs.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(type='AutocastOptimWrapper', optimizer=dict(type='Adam', lr=2e-3)),
)
param_scheduler = dict(student=[dict(type='CosineAnnealingLR', T_max=10, by_epoch=True)])
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=10, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
