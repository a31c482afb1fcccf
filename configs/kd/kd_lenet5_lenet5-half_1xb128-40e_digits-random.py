# The control of KD³: plain KD on 80 % of the pool, drawn at random each epoch.
#   python tools/train.py configs/kd/kd_lenet5_lenet5-half_1xb128-40e_digits-random.py
_base_ = [
    '../_base_/models/lenet5_lenet5-half_digits.py',
    '../_base_/datasets/digits_glyph-pool.py',
    '../_base_/schedules/adam_40e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD', alpha=1.0, selector=dict(type='RandomSelector', ratio=0.8))
