# ZSKT: 80,000 iterations, each one generator step and ten student steps on a batch of 128, counted
# as 200 epochs of 400. Both learning rates fall to 0 along a cosine, once per iteration; gradients
# are clipped.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='Adam', lr=2e-3), clip_grad=dict(max_norm=5)),
    generator=dict(optimizer=dict(type='Adam', lr=1e-3), clip_grad=dict(max_norm=5)),
)
param_scheduler = dict(
    student=[dict(type='CosineAnnealingLR', T_max=200, by_epoch=True, convert_to_iter_based=True)],
    generator=[
        dict(type='CosineAnnealingLR', T_max=200, by_epoch=True, convert_to_iter_based=True)
    ],
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
