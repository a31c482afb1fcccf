# KD³'s schedule (SGD, learning rate 0.05 divided by 10 after 5/8, 6/8 and 7/8 of the epochs),
# shortened from 240 epochs to 40.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)),
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[25, 30, 35], gamma=0.1, by_epoch=True)]
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=40, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
