# KD³'s MNIST schedule: Adam, learning rate 1e-3, 40 epochs.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='Adam', lr=1e-3)),
)
param_scheduler = dict(student=[dict(type='CosineAnnealingLR', T_max=40, by_epoch=True)])
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=40, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
