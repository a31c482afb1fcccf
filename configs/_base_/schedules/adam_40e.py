# KD³'s MNIST optimiser and length (Adam, 40 epochs), with cosine decay.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='Adam', lr=3e-3)),
)
param_scheduler = dict(student=[dict(type='CosineAnnealingLR', T_max=40, by_epoch=True)])
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=40, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
