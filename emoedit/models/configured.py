"""The base class of backbones with one frozen dataclass for architecture and settings of sampling."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from emoedit.models.base import Backbone, check_settings


class Config(Protocol):
    """A frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


C = TypeVar("C", bound=Config)


class ConfiguredBackbone(Backbone, Generic[C]):
    """A backbone with its configuration.

    Attributes:
        config: configuration, from which ``from_config`` builds the backbone.
    """

    config: C

    def _set(self, config: C) -> None:
        """Take a configuration of the same architecture.

        Raises:
            EditError: invalid settings of sampling.
        """
        self.config = config

    def with_sampling(self, **settings: Any) -> Self:
        """See ``Backbone.with_sampling``."""
        check_settings(self, settings)
        other = copy.copy(self)
        other._set(replace(self.config, **settings))
        return other

    def to_config(self) -> dict[str, Any]:
        """What ``from_config`` needs to build the same, as json."""
        return asdict(self.config)
