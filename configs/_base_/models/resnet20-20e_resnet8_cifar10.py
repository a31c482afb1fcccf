# ResNet20 of the short schedule teaches ResNet8. Teacher: configs/teachers/resnet20_20e_cifar10.py.
_base_ = './resnet20_resnet8_cifar10.py'

model = dict(teacher=dict(checkpoint='work_dirs/resnet20_20e_cifar10/student.pth'))
