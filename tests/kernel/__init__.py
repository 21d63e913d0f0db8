"""Tests of the kernel, cifar10/."""
