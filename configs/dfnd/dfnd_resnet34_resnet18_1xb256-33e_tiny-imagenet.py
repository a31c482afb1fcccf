# DFND on Tiny-ImageNet: ResNet34 teaches ResNet18 from the images of ImageNet at 64 pixels.
# Expected: 60.92 % (as KD³'s authors ran it, Table 1). Not reproduced yet.
#   python tools/train.py configs/dfnd/dfnd_resnet34_resnet18_1xb256-33e_tiny-imagenet.py
_base_ = [
    '../_base_/models/resnet34_resnet18_tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet_imagenet-64.py',
    '../_base_/schedules/dfnd_33e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='DFND',
    selector=dict(num_select=600_000),
    teacher_accuracy=0.6644,  # of the teacher in KD³'s Table 1; None: of your teacher's file
)
train_dataloader = dict(batch_size=256)
