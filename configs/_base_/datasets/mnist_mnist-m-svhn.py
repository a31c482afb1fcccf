# MNIST to test on; to train on, the training images of MNIST-M and SVHN, grey and unlabelled.
# BSDS500 is any folder or archive of photographs, the paper's are those of that set:
#   python tools/dataset_converters/make_mnistm.py data/mnist BSDS500 --out data/pools/mnist-m
#   python tools/dataset_converters/pack_images.py data/pools/mnist-m data/svhn/train_32x32.mat \
#       --grey --out data/pools/mnist-m-svhn
_base_ = './mnist.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImagePool', root='data/pools/mnist-m-svhn'),
    batch_size=128,
)
# Digits are not flipped, nor cut out of their middle.
data_preprocessor = dict(augment=[dict(type='BatchRandomCrop', size=32, padding=4)])
