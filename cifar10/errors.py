"""Every exception this project raises on purpose.

    Cifar10Error
    ├── DataError                 the dataset is missing, incomplete or damaged
    │   └── DatasetNotFoundError  ... there is none at the place named
    ├── ImageError                bytes that do not become a picture
    │   ├── UnsupportedImageError ... not JPEG, PNG or WebP
    │   ├── ImageTooLargeError    ... more bytes or pixels than the limits allow
    │   └── UndecodableImageError ... the right type, but broken
    ├── StoreError                the model store
    │   ├── UnreadableStoreError  ... this user may not read it
    │   ├── ModelNotFoundError    ... no such model
    │   ├── InvalidModelNameError ... a name that could not be one
    │   ├── InvalidCardError      ... card.json does not say what a card must say
    │   └── DigestMismatchError   ... model.onnx is not the file its card describes
    ├── PredictorError            running a model
    │   ├── ProviderUnavailableError  ... not on the device asked for
    │   ├── InvalidGraphError     ... the file is not a graph that keeps the contract
    │   └── GoldenMismatchError   ... it runs here, and answers something else
    ├── WeightsError              pretrained weights are missing or do not fit
    ├── RecipeError               no such recipe, or one that cannot be run as asked
    ├── SettingsError             a misspelt or impossible setting of the server
    ├── ExportError               a model that could not be exported faithfully
    └── BenchError                a measurement that could not be made or read

Each message says what was received, what was expected and what to do about it.
"""


class Cifar10Error(Exception):
    """Base of all the errors that this project raises on purpose."""


class DataError(Cifar10Error):
    """The dataset is missing, incomplete or damaged."""


class DatasetNotFoundError(DataError):
    """There is no dataset at the place named."""


class ImageError(Cifar10Error):
    """Bytes that cannot be turned into a picture."""


class UnsupportedImageError(ImageError):
    """The bytes are not of an accepted image type."""


class ImageTooLargeError(ImageError):
    """The image has more bytes or more pixels than the limits allow."""


class UndecodableImageError(ImageError):
    """The bytes claim an accepted type but cannot be decoded."""


class StoreError(Cifar10Error):
    """A problem with the model store."""


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
    """The execution provider asked for is not the one that would execute."""


class InvalidGraphError(PredictorError):
    """The ONNX file does not keep the graph contract."""


class GoldenMismatchError(PredictorError):
    """The model's answer to the golden image is not the one on its card."""


class WeightsError(Cifar10Error):
    """Pretrained weights are missing or do not fit the backbone."""


class RecipeError(Cifar10Error):
    """A recipe that does not exist or cannot be run as asked."""


class SettingsError(Cifar10Error):
    """An environment variable of the server is misspelt or has a value it cannot have."""


class ExportError(Cifar10Error):
    """A trained model that could not be exported faithfully."""


class BenchError(Cifar10Error):
    """A measurement that could not be made, written or read."""
