# Ablation of KD³ (Table 2): as many images as the criterion would keep, drawn at random.
#   python tools/train.py configs/kd3/ablation/kd3_resnet8_resnet8-half_1xb128-40e-random_digits.py
_base_ = '../kd3_resnet8_resnet8-half_1xb128-40e_digits.py'

model = dict(selector=dict(mode='random'))
