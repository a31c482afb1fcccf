# DFAD on CINIC-10: VGG16 teaches VGG13, and no image is read.
# Expected: 60.67 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 84.22 %. Not reproduced yet.
#   python tools/train.py configs/dfad/dfad_vgg16_vgg13_1xb256-500e_cinic10.py
_base_ = [
    '../_base_/models/vgg16_vgg13_cinic10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cinic10_latents.py',
    '../_base_/schedules/dfad_500e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DFAD', generator=_base_.generators.dfad)
