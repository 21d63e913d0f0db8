"""All exceptions that this project raises deliberately.

    Cifar10Error
    ├── DataError                 the dataset is missing, incomplete or damaged
    │   └── DatasetNotFoundError  ... no dataset at the given place
    ├── ImageError                bytes that cannot be decoded to a picture
    │   ├── UnsupportedImageError ... not an accepted type
    │   ├── ImageTooLargeError    ... more bytes or pixels than the limits allow
    │   └── UndecodableImageError ... the right type, but broken
    ├── StoreError                the model store
    │   ├── UnreadableStoreError  ... this user may not read it
    │   ├── ModelNotFoundError    ... no such model
    │   ├── InvalidModelNameError ... not a valid model name
    │   ├── InvalidCardError      ... card.json is not a valid model card
    │   └── DigestMismatchError   ... model.onnx is not the file its card describes
    ├── PredictorError            running a model
    │   ├── ProviderUnavailableError  ... it would not run on the requested device
    │   ├── InvalidGraphError     ... the file violates the graph contract
    │   └── GoldenMismatchError   ... it runs, but gives wrong answers
    ├── WeightsError              pretrained weights are missing or do not fit
    ├── RecipeError               no such recipe, or one that cannot be run as requested
    ├── SettingsError             a misspelt or invalid setting of the server
    ├── ExportError               a model that could not be exported faithfully
    └── BenchError                a measurement that could not be made or read

Each message says what was received, what was expected and what to do about it.
"""


class Cifar10Error(Exception):
    """Base class of all errors that this project raises deliberately."""


class DataError(Cifar10Error):
    """The dataset is missing, incomplete or damaged."""


class DatasetNotFoundError(DataError):
    """There is no dataset at the given place."""


class ImageError(Cifar10Error):
    """The bytes cannot be decoded to a picture."""


class UnsupportedImageError(ImageError):
    """The bytes are not of an accepted image type."""


class ImageTooLargeError(ImageError):
    """The image has more bytes or more pixels than the limits allow."""


class UndecodableImageError(ImageError):
    """The bytes claim an accepted type but cannot be decoded."""


class StoreError(Cifar10Error):
    """The model store, or a model in it, is unusable."""


class UnreadableStoreError(StoreError):
    """This user may not read the store, or a folder in it."""


class ModelNotFoundError(StoreError):
    """The store holds no model of that name."""


class InvalidModelNameError(StoreError):
    """The name does not match ``^[a-z0-9][a-z0-9_]*$``."""


class InvalidCardError(StoreError):
    """``card.json`` is not a valid model card."""


class DigestMismatchError(StoreError):
    """A file's SHA-256 is not the one written on its card."""


class PredictorError(Cifar10Error):
    """A model could not be loaded or run."""


class ProviderUnavailableError(PredictorError):
    """The model would not run on the requested execution provider."""


class InvalidGraphError(PredictorError):
    """The ONNX file violates the graph contract."""


class GoldenMismatchError(PredictorError):
    """The model's answer to the golden images differs from the one on its card."""


class WeightsError(Cifar10Error):
    """Pretrained weights are missing or do not fit the backbone."""


class RecipeError(Cifar10Error):
    """The recipe does not exist or cannot be run as requested."""


class SettingsError(Cifar10Error):
    """An environment variable of the server is misspelt or has an invalid value."""


class ExportError(Cifar10Error):
    """A trained model could not be exported faithfully."""


class BenchError(Cifar10Error):
    """A measurement could not be made, written or read."""
