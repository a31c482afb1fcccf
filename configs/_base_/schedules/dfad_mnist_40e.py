# DFAD on MNIST: 40 epochs of 50 iterations on batches of 512, constant learning rates.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)),
    generator=dict(optimizer=dict(type='Adam', lr=1e-3)),
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=40, val_interval=1)
auto_scale_lr = dict(base_batch_size=512)
