"""Backbones that are made of one frozen dataclass: its architecture and its settings of sampling."""

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
        config: what ``from_config`` builds it of.
    """

    config: C

    def _set(self, config: C) -> None:
        """Take a configuration of the same architecture.

        Raises:
            EditError: its settings of sampling make no sense.
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
