# KD³ with a linear adapter: at this size the bottleneck would weigh more than the student.
#   python tools/train.py configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e-linear_digits.py
_base_ = './kd3_lenet5_lenet5-half_1xb128-40e_digits.py'

model = dict(adapter=dict(form='linear'))
