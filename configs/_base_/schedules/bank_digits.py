# Inversion on the embedded benchmark: 20 epochs, each after one round of synthesis.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(
        optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4),
    ),
)
param_scheduler = dict(
    student=[dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, convert_to_iter_based=True)],
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=1)
