# KD³'s recipe for teachers, shortened: SGD, weight decay 5e-4, cosine decay over 60 epochs.
# The weight decay matters to students: without it the features a student must match are large.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)),
)
param_scheduler = dict(student=[dict(type='CosineAnnealingLR', T_max=60, by_epoch=True)])
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=60, val_interval=1)
auto_scale_lr = dict(base_batch_size=64)
