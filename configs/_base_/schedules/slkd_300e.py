# The schedule of SLKD (arXiv 2106.10885), whose authors wrote STKD: SGD with Nesterov's momentum,
# learning rate 0.1 divided by 10 after epochs 260 and 290, for batches of 128.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(
        optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True),
    ),
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[260, 290], gamma=0.1, by_epoch=True)]
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
