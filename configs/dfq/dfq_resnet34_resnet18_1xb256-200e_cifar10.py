# DFQ on CIFAR-10: ResNet34 teaches ResNet18, and no image is read.
# Expected: 94.61 % (as FastDFKD, arXiv 2112.06253, prints it), with a teacher of 95.70 %.
# Not reproduced yet.
#   python tools/train.py configs/dfq/dfq_resnet34_resnet18_1xb256-200e_cifar10.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar10_latents.py',
    '../_base_/schedules/dfq_200e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=40 * 256))

model = dict(type='DFQ', generator=_base_.generators.dfq)
