# DAFL on Tiny-ImageNet: ResNet34 teaches ResNet18, and no image is read.
# Expected: 52.20 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 66.44 %. Not reproduced yet.
#   python tools/train.py configs/dafl/dafl_resnet34_resnet18_1xb1024-2000e_tiny-imagenet.py
_base_ = [
    '../_base_/models/resnet34_resnet18_tiny-imagenet.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/tiny-imagenet_latents.py',
    '../_base_/schedules/dafl_2000e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=120 * 1024), batch_size=1024)

# The weights of CIFAR-100; one up-sampling more, so that the first layer is no larger.
model = dict(
    type='DAFL',
    generator=dict(latent_size=1000, widths=(128, 128, 128, 64), eps=0.8),
    one_hot=dict(loss_weight=0.5),
    balance=dict(loss_weight=20.0),
)
