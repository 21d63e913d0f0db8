"""Choose the models that a server loads, and the one that answers requests that name none."""

import logging
from dataclasses import dataclass, field

from cifar10.errors import Cifar10Error, ModelNotFoundError
from cifar10.predictor import likely_device
from cifar10.released import AUTO, RELEASED, AutoRule, auto_rule, default_model
from cifar10.store import ModelStore
from service.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The models to load, and the default model for requests that name none."""

    names: tuple[str, ...]
    default: str
    aliases: dict[str, str] = field(default_factory=dict)
    """Alias → model name."""
    auto: AutoRule | None = None
    """Rule of the virtual model ``auto``, if there is one."""

    @property
    def default_names(self) -> tuple[str, ...]:
        """The models that answer requests that name none: both of ``auto`` where it is the
        default."""
        if self.auto is not None and self.default == AUTO:
            return self.auto.names
        return (self.default,)


def choose(settings: Settings, store: ModelStore) -> Choice:
    """Return the models to load from ``store``.

    Raises:
        ModelNotFoundError: the store is empty or lacks a model that the settings name. The message
            lists the models in the store.
    """
    there = store.names()
    if not there:
        message = (
            f"no model in {store.root}. Make one: cifar10 train simple_cnn && "
            "cifar10 export simple_cnn; or point CIFAR10_MODELS to a folder of models"
        )
        raise ModelNotFoundError(message)
    names = settings.load or tuple(there)
    for name in names:
        if name not in there:
            message = f"CIFAR10_LOAD names {name!r}; {store.root} has: {', '.join(there)}"
            raise ModelNotFoundError(message)
    device = likely_device(settings.device, settings.engine)
    current = names
    if settings.default_model is None:
        current = tuple(name for name in names if not _is_of_an_older_file(name, store))
    auto = None if AUTO in settings.aliases else auto_rule(current, device)
    selectable = names if auto is None else (*names, AUTO)
    for alias, model in settings.aliases.items():
        if alias in there or model not in selectable:
            reason = "is a model's own name" if alias in there else f"stands for {model!r}"
            message = (
                f"CIFAR10_ALIASES: {alias!r} {reason}; models to load: {', '.join(selectable)}"
            )
            raise ModelNotFoundError(message)
    default = settings.default_model
    if default is not None:
        default = settings.aliases.get(default, default)
    elif auto is not None:
        default = AUTO
    else:
        default = default_model(current, device) or RELEASED[device][0]
    if default not in selectable:
        message = (
            f"the default model {default!r} is not among those to load ({', '.join(selectable)}); "
            "set CIFAR10_DEFAULT_MODEL to one of them"
        )
        raise ModelNotFoundError(message)
    return Choice(names, default, settings.aliases, auto)


def _is_of_an_older_file(name: str, store: ModelStore) -> bool:
    """Whether the model is a variant of a source that has since been exported again; if so, log a
    warning."""
    try:
        variant = store.card(name).variant
        if variant is None or store.card(variant.source).sha256 == variant.source_sha256:
            return False
    except Cifar10Error:  # loading will report it, or the source is not in this store
        return False
    logger.warning(
        "%s was made from an older %s, so it is not the default; make it again: "
        "cifar10 export %s --%s",
        name, variant.source, variant.source, store.card(name).precision,
    )  # fmt: skip
    return True
