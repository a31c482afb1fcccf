# DAFL on CIFAR: 2,000 epochs of 120 batches of 1,024. The student's learning rate is divided by 10
# after epochs 800 and 1,600, the generator's is constant.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)),
    generator=dict(optimizer=dict(type='Adam', lr=0.02)),
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[800, 1600], gamma=0.1, by_epoch=True)]
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2000, val_interval=1)
auto_scale_lr = dict(base_batch_size=1024)
