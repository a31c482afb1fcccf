# PRE-DFKD on MNIST: LeNet5 teaches LeNet5-half, and no image is read. Not reproduced yet.
#   python tools/train.py configs/pre_dfkd/pre_dfkd_lenet5_lenet5-half_1xb1024-400e_mnist.py
_base_ = [
    '../_base_/models/lenet5_lenet5-half_mnist.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/mnist_latents.py',
    '../_base_/schedules/pre_dfkd_400e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=36 * 1024), batch_size=1024)

# The published code has Adam with 0.1, which hardly trains; this rate is that of DFAD on this pair,
# whose student minimises the same loss.
optim_wrapper = dict(student=dict(optimizer=dict(lr=0.01)))

model = dict(type='PREDFKD', generator=_base_.generators.pre, memory=_base_.generators.pre_memory)
