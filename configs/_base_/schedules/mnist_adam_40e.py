# KD³'s optimiser for MNIST: Adam, learning rate 1e-3, 40 epochs.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='Adam', lr=1e-3)),
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=40, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
