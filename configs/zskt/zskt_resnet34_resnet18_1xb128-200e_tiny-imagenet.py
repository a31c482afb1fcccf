# ZSKT on Tiny-ImageNet: ResNet34 teaches ResNet18, and no image is read.
# Expected: 31.51 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 66.44 %. Not reproduced yet.
#   python tools/train.py configs/zskt/zskt_resnet34_resnet18_1xb128-200e_tiny-imagenet.py
_base_ = [
    '../_base_/models/resnet34_resnet18_tiny-imagenet.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/tiny-imagenet_latents.py',
    '../_base_/schedules/zskt_200e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=400 * 128), batch_size=128)

maps = dict(backbone=dict(out_indices=(0, 1, 2, 3)))
model = dict(type='ZSKT', teacher=maps, student=maps, generator=_base_.generators.zskt)
