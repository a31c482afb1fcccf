# HiDFD: 400 epochs of the GAN on 5,000 images, 20,000 iterations in all, then 240 of the student,
# whose learning rate falls after 150, 180 and 210 of them.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)),
    generator=dict(optimizer=dict(type='Adam', lr=2e-4, betas=(0.0, 0.999))),
    discriminator=dict(optimizer=dict(type='Adam', lr=2e-4, betas=(0.0, 0.999))),
)
param_scheduler = dict(
    student=[
        dict(type='MultiStepLR', begin=400, milestones=[150, 180, 210], gamma=0.1, by_epoch=True)
    ]
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=640, val_begin=401, val_interval=1)
auto_scale_lr = dict(base_batch_size=64)
