# DFAD and DDAD on CIFAR: 500 epochs of 50 iterations, each five student steps and one generator
# step on batches of 256. Both learning rates are divided by 10 after epochs 100 and 200.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)),
    generator=dict(optimizer=dict(type='Adam', lr=1e-3)),
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[100, 200], gamma=0.1, by_epoch=True)],
    generator=[dict(type='MultiStepLR', milestones=[100, 200], gamma=0.1, by_epoch=True)],
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=500, val_interval=1)
auto_scale_lr = dict(base_batch_size=256)
