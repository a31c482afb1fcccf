# DFND's schedule: 33 epochs of the 600,000 images kept, SGD, learning rate 0.1 divided by 10 at 40
# and 80 %; the adaptation matrix has an Adam of its own and no schedule.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)),
    adaptation=dict(optimizer=dict(type='Adam', lr=1e-3)),
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[13, 27], gamma=0.1, by_epoch=True)],
    adaptation=[],
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=33, val_interval=1)
auto_scale_lr = dict(base_batch_size=256)
