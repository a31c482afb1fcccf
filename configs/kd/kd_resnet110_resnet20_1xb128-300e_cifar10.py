# KD on CIFAR-10 as the authors of STKD weigh it, CE + 0.1 T^2 KL at T = 3: the control of STKD.
# Not reproduced yet.
#   python tools/train.py configs/kd/kd_resnet110_resnet20_1xb128-300e_cifar10.py
_base_ = [
    '../_base_/models/resnet110_resnet20_cifar10.py',
    '../_base_/datasets/cifar10_reflect.py',
    '../_base_/schedules/slkd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD', alpha=0.1, ce_weight=1.0, temperature=3.0)
