"""Hydra's sweeper for experiments/sweep.py: what shares an inversion stays in one job, and every job is looked through
before the first one starts.

``emotion=happy,sad strength=0.5,1.0`` is one job with two lists; ``shard=all/8`` is eight jobs. Hydra finds this file
by the name of its folder, which lies beside the script.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emoedit.evaluation.naming import EditorDescription, check_names
from emoedit.evaluation.sweeps import REFERENCES, Job
from emoedit.types import EmoEditError

TOGETHER = ("emotion", "strength")


class Together(BasicSweeper):
    """See above; its settings are those of Hydra's basic sweeper."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """The overrides of each job."""
        return BasicSweeper.split_arguments([rewritten(override) for override in overrides], max_batch_size)

    def sweep(self, arguments: list[str]) -> object:
        """Runs the jobs.

        Args:
            arguments: overrides, as they were typed.

        Raises:
            CompactHydraException: the folder of the results cannot be written.
        """
        try:
            return super().sweep(arguments)
        except OSError as error:  # of Hydra's own files; what a job cannot write is told by the job
            raise CompactHydraException(f"sweep: {error.filename or 'the output'}: {error.strerror or error}") from None

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Raises:
        CompactHydraException: a job that makes no sense; one name for two editors.
        """
        load = self.hydra_context.config_loader.load_sweep_config
        jobs = [job_of(load(self.config, list(overrides)), check=True) for overrides in batch]
        try:
            check_names([(job.data.key, EditorDescription.of(job.editor)) for job in jobs if job.editor != REFERENCES])
        except EmoEditError as error:
            raise CompactHydraException(f"sweep: {error}") from None


def rewritten(override: Override) -> Override:
    """Values with commas between them as a list, where they share an inversion; all shards one by one."""
    key = override.get_key_element()
    parser = OverridesParser.create()
    if key in TOGETHER and override.is_discrete_sweep():
        return parser.parse_override(f"{key}=[{','.join(override.sweep_string_iterator())}]")
    whole = key == "shard" and not override.is_sweep_override()
    if whole and (found := re.fullmatch(r"all/(\d{1,4})", override.get_value_element_as_str())):
        return parser.parse_override(f"shard={','.join(f'{index}/{found[1]}' for index in range(int(found[1])))}")
    return override


def job_of(config: DictConfig, *, check: bool = False) -> Job:
    """The job of a composed config.

    Args:
        check: whether to look for mistakes that need more than the config.

    Raises:
        CompactHydraException: it makes no sense; Hydra shows its message without a traceback.
    """
    try:
        if missing := sorted(key for key in OmegaConf.missing_keys(config) if not key.startswith("hydra.")):
            raise CompactHydraException(f"sweep: say {', '.join(f'{key}=…' for key in missing)}")
        job = Job.from_config({key: _plain(config[key]) for key in config if key != "hydra"})
        if check:
            job.check()
    except (EmoEditError, OmegaConfBaseException) as error:
        hint = "\nset EMOEDIT_DATA, or say data.root=…" if "EMOEDIT_DATA" in str(error) else ""
        raise CompactHydraException(f"sweep: {error}{hint}") from None
    return job


def _plain(value: object) -> object:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
