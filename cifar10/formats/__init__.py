"""Recognise the types of image files, and read the layout of each.

As in :mod:`cifar10.image_layout`, readers never raise and take time linear in the input's length.
"""
