# Ablation of KD³ (Table 2): a classifier of its own learns the probabilities of the teacher.
#   python tools/train.py configs/kd3/ablation/kd3_resnet20_resnet8_1xb128-10e-soft_cifar10.py
_base_ = '../kd3_resnet20_resnet8_1xb128-10e_cifar10.py'

model = dict(classifier='own_soft')
