# DDAD on CINIC-10: ResNet34 teaches ResNet18, and no image is read.
# Expected: 80.10 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 86.62 %. Not reproduced yet.
#   python tools/train.py configs/ddad/ddad_resnet34_resnet18_1xb256-500e_cinic10.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cinic10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cinic10_latents.py',
    '../_base_/schedules/dfad_500e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DDAD', generator=_base_.generators.dfad)
