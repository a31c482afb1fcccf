# Adam with cosine decay over 60 epochs.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='Adam', lr=2e-3)),
)
param_scheduler = dict(student=[dict(type='CosineAnnealingLR', T_max=60, by_epoch=True)])
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=60, val_interval=1)
auto_scale_lr = dict(base_batch_size=64)
