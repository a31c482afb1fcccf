# Ablation of KD³ (Table 2): a classifier of its own learns the most likely class of the teacher.
#   python tools/train.py configs/kd3/ablation/kd3_resnet8_resnet8-half_1xb128-40e-one-hot_digits.py
_base_ = '../kd3_resnet8_resnet8-half_1xb128-40e_digits.py'

model = dict(classifier='own_one_hot')
