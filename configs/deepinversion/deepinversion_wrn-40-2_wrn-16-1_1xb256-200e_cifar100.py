# DeepInversion, adaptive, on CIFAR-100: WRN-40-2 teaches WRN-16-1, and no image is read.
# Expected: 53.77 % (as FastDFKD, arXiv 2112.06253, prints it), with a teacher of 75.83 %.
# Not reproduced yet.
# python tools/train.py configs/deepinversion/deepinversion_wrn-40-2_wrn-16-1_1xb256-200e_cifar100.py  # noqa: E501
_base_ = [
    '../_base_/models/wrn-40-2_wrn-16-1_cifar100.py',
    '../_base_/datasets/cifar100_bank.py',
    '../_base_/schedules/bank_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DeepInversion')
