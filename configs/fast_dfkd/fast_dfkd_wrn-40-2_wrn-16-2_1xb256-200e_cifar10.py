# FastDFKD on CIFAR-10: WRN-40-2 teaches WRN-16-2, and no image is read.
# Expected: 91.96 % (paper, Fast-5), with a teacher of 94.87 %. Not reproduced yet.
#   python tools/train.py configs/fast_dfkd/fast_dfkd_wrn-40-2_wrn-16-2_1xb256-200e_cifar10.py
_base_ = [
    '../_base_/models/wrn-40-2_wrn-16-2_cifar10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar10_bank.py',
    '../_base_/schedules/fast_dfkd_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='FastDFKD', generator=_base_.generators.dfq)
