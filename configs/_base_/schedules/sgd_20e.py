# A schedule for real images on a CPU: SGD with cosine decay over 20 epochs, batches of 128,
# bfloat16. Far shorter than the papers' (about 240 epochs), so its numbers stand beside each other,
# not beside theirs.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(
        type='AutocastOptimWrapper',
        optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True),
    ),
)
param_scheduler = dict(
    student=[dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, convert_to_iter_based=True)]
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
