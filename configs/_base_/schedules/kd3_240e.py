# KD³'s schedule: SGD, learning rate 0.05 divided by 10 after epochs 150, 180 and 210, for batches
# of 1,024. An epoch is one pass over the images selected for it.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)),
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[150, 180, 210], gamma=0.1, by_epoch=True)]
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=240, val_interval=1)
auto_scale_lr = dict(base_batch_size=1024)
