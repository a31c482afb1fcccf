# The control of all controls: plain KD on uniform noise.
#   python tools/train.py configs/kd/kd_lenet5_lenet5-half_1xb128-40e_digits-noise.py
_base_ = './kd_lenet5_lenet5-half_1xb128-40e_digits-random.py'

train_dataloader = dict(dataset=dict(_delete_=True, type='NoisePool', num_images=12000))
