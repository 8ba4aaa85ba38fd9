"""What a user calls: the commands of ``deit-plugin``, and the variants in mmpretrain's hub."""
