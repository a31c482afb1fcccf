# DDAD on Tiny-ImageNet: VGG16 teaches VGG13, and no image is read.
# Expected: 42.25 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 62.34 %. Not reproduced yet.
#   python tools/train.py configs/ddad/ddad_vgg16_vgg13_1xb256-500e_tiny-imagenet.py
_base_ = [
    '../_base_/models/vgg16_vgg13_tiny-imagenet.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/tiny-imagenet_latents.py',
    '../_base_/schedules/dfad_500e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DDAD', generator=_base_.generators.transposed)
