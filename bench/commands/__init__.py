"""The commands of ``cifar10 bench``, one file each with its options."""
