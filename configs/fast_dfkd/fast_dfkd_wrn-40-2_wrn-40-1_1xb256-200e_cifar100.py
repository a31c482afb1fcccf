# FastDFKD on CIFAR-100: WRN-40-2 teaches WRN-40-1, and no image is read.
# Expected: 61.80 % (paper, Fast-5), with a teacher of 75.83 %. Not reproduced yet.
#   python tools/train.py configs/fast_dfkd/fast_dfkd_wrn-40-2_wrn-40-1_1xb256-200e_cifar100.py
_base_ = [
    '../_base_/models/wrn-40-2_wrn-40-1_cifar100.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar100_bank.py',
    '../_base_/schedules/fast_dfkd_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='FastDFKD', generator=_base_.generators.dfq)
