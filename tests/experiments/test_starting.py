"""Trainings in colour say which command makes the model of luminance that they start from."""

from __future__ import annotations

import pytest

from emoedit.types import DataError
from lib.starting import luminance_folder


def test_the_folder_is_given_back_or_the_command_that_makes_it_named(tmp_path):
    how = {"setting": "luminance", "command": "emoedit train asyrp recipe=asyrp_luminance"}
    assert luminance_folder(str(tmp_path), **how) == tmp_path
    with pytest.raises(DataError, match=r"luminance=.*missing.*emoedit train asyrp recipe=.*; luminance=null starts"):
        luminance_folder(str(tmp_path / "missing"), **how)
