# DFQ on CIFAR-100: ResNet34 teaches ResNet18, and no image is read.
# Expected: 77.01 % (as FastDFKD, arXiv 2112.06253, prints it), with a teacher of 78.05 %.
# Not reproduced yet.
#   python tools/train.py configs/dfq/dfq_resnet34_resnet18_1xb256-200e_cifar100.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar100.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar100_latents.py',
    '../_base_/schedules/dfq_200e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=40 * 256))
optim_wrapper = dict(student=dict(optimizer=dict(lr=0.05)))

model = dict(type='DFQ', generator=_base_.generators.dfq)
