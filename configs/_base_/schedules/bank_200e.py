# Inversion as in the benchmarks of CMI and FastDFKD: 200 epochs, each after one round of synthesis.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)),
)
param_scheduler = dict(student=[dict(type='CosineAnnealingLR', T_max=200, by_epoch=True)])
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200, val_interval=1)
auto_scale_lr = dict(base_batch_size=256)
