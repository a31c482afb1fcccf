# HiDFD on the embedded benchmark: 10 epochs of a small GAN, about 1,000 iterations in all, then 64
# of the student, whose learning rate falls at 62.5, 75 and 87.5 % of them.
small_gan = dict(
    gan_epochs=10,
    num_synthetic=1500,
    selector=dict(num_select=240, class_cap='even'),
    generator=dict(latent_size=64, width=8),
    discriminator=dict(width=8),
    smoothing=dict(interval=100),
    average=dict(decay=0.995, start=100),
)

optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)),
    generator=dict(optimizer=dict(type='Adam', lr=2e-4, betas=(0.0, 0.999))),
    discriminator=dict(optimizer=dict(type='Adam', lr=2e-4, betas=(0.0, 0.999))),
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', begin=10, milestones=[40, 48, 56], gamma=0.1, by_epoch=True)]
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=74, val_begin=11, val_interval=1)
