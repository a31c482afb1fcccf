# The schedule of wide residual networks and of attention transfer: SGD, learning rate 0.1 times 0.2
# from epochs 60, 120 and 160 on, for batches of 128.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)),
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[59, 119, 159], gamma=0.2, by_epoch=True)]
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
