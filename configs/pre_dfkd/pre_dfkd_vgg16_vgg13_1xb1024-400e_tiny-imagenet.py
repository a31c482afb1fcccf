# PRE-DFKD on Tiny-ImageNet: VGG16 teaches VGG13, and no image is read.
# Expected: 45.92 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 62.34 %. Not reproduced yet.
#   python tools/train.py configs/pre_dfkd/pre_dfkd_vgg16_vgg13_1xb1024-400e_tiny-imagenet.py
_base_ = [
    '../_base_/models/vgg16_vgg13_tiny-imagenet.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/tiny-imagenet_latents.py',
    '../_base_/schedules/pre_dfkd_400e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=36 * 1024), batch_size=1024)

# One up-sampling more, so that the first layers are no larger.
wide = dict(widths=(128, 128, 128, 64))
model = dict(
    type='PREDFKD',
    generator=dict(_base_.generators.pre, **wide),
    memory=dict(_base_.generators.pre_memory, **wide),
)
