# The teacher VGG16, trained on the labelled images of CINIC-10 as KD³'s teachers are.
# Expected: 84.22 % (KD³, Table 1, column T.). Not reproduced yet.
#   python tools/train.py configs/teachers/vgg16_cinic10.py
_base_ = [
    '../_base_/networks/cinic10.py',
    '../_base_/datasets/cinic10.py',
    '../_base_/schedules/teacher_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.vgg16)
train_dataloader = dict(batch_size=64)
