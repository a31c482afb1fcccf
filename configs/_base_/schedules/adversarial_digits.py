# Adversarial methods on the embedded benchmark: 1,000 iterations in 20 epochs.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(
        optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4),
    ),
    generator=dict(optimizer=dict(type='Adam', lr=1e-3)),
)
param_scheduler = dict(
    student=[dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, convert_to_iter_based=True)],
    generator=[dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, convert_to_iter_based=True)],
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=1)
