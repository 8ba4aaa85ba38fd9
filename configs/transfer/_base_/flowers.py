# Flowers-102, trained on its train and val splits: data/flowers102/ with
# jpg/, imagelabels.mat and setid.mat
# (https://www.robots.ox.ac.uk/~vgg/data/flowers/102).
_base_ = ['../../_base_/imagenet_224.py']

data_preprocessor = dict(num_classes=102, erasing=0.0)
train_dataloader = dict(
    batch_size=96, dataset=dict(type='Flowers102', data_root='data/flowers102', split='trainval')
)
val_dataloader = dict(
    batch_size=96, dataset=dict(type='Flowers102', data_root='data/flowers102', split='test')
)
test_dataloader = val_dataloader
