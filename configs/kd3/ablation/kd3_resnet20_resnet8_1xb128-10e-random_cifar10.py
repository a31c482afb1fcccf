# Ablation of KD³ (Table 2): as many images as the criterion would keep, drawn at random.
#   python tools/train.py configs/kd3/ablation/kd3_resnet20_resnet8_1xb128-10e-random_cifar10.py
_base_ = '../kd3_resnet20_resnet8_1xb128-10e_cifar10.py'

model = dict(selector=dict(mode='random'))
