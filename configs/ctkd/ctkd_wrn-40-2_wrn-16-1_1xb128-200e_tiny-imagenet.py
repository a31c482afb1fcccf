# CTKD on Tiny-ImageNet: WRN-40-2 and its untrained twin teach WRN-16-1, on the 64-pixel images.
# Attention weighs four times as much as on 32 pixels: its loss is a mean over the map.
# Not reproduced yet.
#   python tools/train.py configs/ctkd/ctkd_wrn-40-2_wrn-16-1_1xb128-200e_tiny-imagenet.py
_base_ = [
    '../_base_/models/wrn-40-2_wrn-16-1_tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet.py',
    '../_base_/schedules/ctkd_200e.py',
    '../_base_/default_runtime.py',
]

maps = dict(backbone=dict(out_indices=(0, 1, 2), raw_last=True))  # sums, before the last ReLU
attention = dict(indices=[0, 1, 2], loss_weight=4000.0)
model = dict(type='CTKD', teacher=maps, student=maps, attention=attention)
