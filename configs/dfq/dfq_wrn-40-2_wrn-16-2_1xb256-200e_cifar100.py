# DFQ on CIFAR-100: WRN-40-2 teaches WRN-16-2, and no image is read.
# Expected: 64.79 % (as FastDFKD, arXiv 2112.06253, prints it), with a teacher of 75.83 %.
# Not reproduced yet.
#   python tools/train.py configs/dfq/dfq_wrn-40-2_wrn-16-2_1xb256-200e_cifar100.py
_base_ = [
    '../_base_/models/wrn-40-2_wrn-16-2_cifar100.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar100_latents.py',
    '../_base_/schedules/dfq_200e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=40 * 256))

model = dict(type='DFQ', generator=_base_.generators.dfq)
