# For each data set, what its loaders of training and of test images have that
# those of ImageNet have not. A config takes one by
#   train_dataloader, val_dataloader = _base_.pop('data_sets').cars
# where `pop` keeps the others out of the config.
data_sets = dict(
    # mmpretrain downloads both CIFARs. Their images are in memory, in RGB: a
    # config puts ReverseChannels first, as the pipeline takes them for BGR.
    cifar10=(
        dict(dataset=dict(type='CIFAR10', data_root='data/cifar10', split='train')),
        dict(dataset=dict(type='CIFAR10', data_root='data/cifar10', split='test')),
    ),
    cifar100=(
        dict(dataset=dict(type='CIFAR100', data_root='data/cifar100', split='train')),
        dict(dataset=dict(type='CIFAR100', data_root='data/cifar100', split='test')),
    ),
    # data/flowers102/ with jpg/, imagelabels.mat and setid.mat
    # (https://www.robots.ox.ac.uk/~vgg/data/flowers/102). Training is on the
    # splits train and val.
    flowers=(
        dict(dataset=dict(type='Flowers102', data_root='data/flowers102', split='trainval')),
        dict(dataset=dict(type='Flowers102', data_root='data/flowers102', split='test')),
    ),
    # data/stanford_cars/ with car_ims/ and cars_annos.mat.
    cars=(
        dict(dataset=dict(type='StanfordCars', data_root='data/stanford_cars', split='train')),
        dict(dataset=dict(type='StanfordCars', data_root='data/stanford_cars', split='test')),
    ),
    # mmpretrain has no class for iNaturalist. Each category is a folder, named
    # alike in both splits: data/inat2018/train/0000/*.jpg and so on up to
    # data/inat2018/val/8141/*.jpg; in data/inat2019 0000 to 1009. A config
    # gives the pipelines anew, which `_delete_` takes away with ImageNet's
    # split.
    inat18=(
        dict(
            dataset=dict(_delete_=True, type='CustomDataset', data_root='data/inat2018', data_prefix='train')
        ),
        dict(dataset=dict(_delete_=True, type='CustomDataset', data_root='data/inat2018', data_prefix='val')),
    ),
    inat19=(
        dict(
            dataset=dict(_delete_=True, type='CustomDataset', data_root='data/inat2019', data_prefix='train')
        ),
        dict(dataset=dict(_delete_=True, type='CustomDataset', data_root='data/inat2019', data_prefix='val')),
    ),
)
