"""Task of a network: the size of its images and the number of its classes."""

from dataclasses import dataclass
from typing import Final

from cifar10.contract import ImageShape
from cifar10.labels import CLASS_COUNT, IMAGE_SIZE


@dataclass(frozen=True)
class Task:
    """Size of the images, which are square, and number of classes."""

    image_size: int
    """Pixels per side."""
    class_count: int

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels of an image."""
        return (self.image_size, self.image_size, 3)


CIFAR10: Final = Task(IMAGE_SIZE, CLASS_COUNT)
