# ZSKT on CIFAR-10: WRN-16-2 teaches WRN-16-1, and no image is read.
# Expected: 82.44 % (paper), with a teacher of 93.97 %. Not reproduced yet.
#   python tools/train.py configs/zskt/zskt_wrn-16-2_wrn-16-1_1xb128-200e_cifar10.py
_base_ = './zskt_wrn-40-2_wrn-16-1_1xb128-200e_cifar10.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/wrn-16-2_cifar10/student.pth', **_base_.networks.wrn_16_2)
)
