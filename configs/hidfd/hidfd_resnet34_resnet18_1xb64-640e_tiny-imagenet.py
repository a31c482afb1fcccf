# HiDFD: ResNet34 teaches ResNet18 Tiny-ImageNet from 5,000 images of ImageNet and 50,000 of a GAN.
# Not reproduced yet.
#   python tools/train.py configs/hidfd/hidfd_resnet34_resnet18_1xb64-640e_tiny-imagenet.py
_base_ = [
    '../_base_/models/resnet34_resnet18_tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet_hybrid.py',
    '../_base_/schedules/hidfd_640e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='HiDFD', gan_epochs=400)
