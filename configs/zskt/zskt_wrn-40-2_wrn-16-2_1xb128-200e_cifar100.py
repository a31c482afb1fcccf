# ZSKT on CIFAR-100: WRN-40-2 teaches WRN-16-2, and no image is read.
# FastDFKD (arXiv 2112.06253) prints 54.59 %, of its own form of ZSKT, with a teacher of 75.83 %.
# Not reproduced yet.
#   python tools/train.py configs/zskt/zskt_wrn-40-2_wrn-16-2_1xb128-200e_cifar100.py
_base_ = './zskt_wrn-40-2_wrn-16-1_1xb128-200e_cifar100.py'

model = dict(student=_base_.networks.wrn_16_2)
