# PRE-DFKD: 400 epochs of 36 iterations, each one generator step, ten student steps on 1,024 new and
# 128 replayed images, and four steps of the auto-encoder on 512 and 128. The learning rate of the
# student falls along a cosine, once per epoch; the others are constant.
optim_wrapper = dict(
    constructor='RoleOptimWrapperConstructor',
    student=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)),
    generator=dict(optimizer=dict(type='Adam', lr=0.02)),
    memory=dict(optimizer=dict(type='Adam', lr=0.02 / 40)),
)
param_scheduler = dict(student=[dict(type='CosineAnnealingLR', T_max=400, by_epoch=True)])
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=400, val_interval=1)
auto_scale_lr = dict(base_batch_size=1024)
