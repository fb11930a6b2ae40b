"""Editors, emotions and strengths over a data set, on one machine or many.

    python experiments/sweep.py -m editor=asyrp,vae,references emotion=happy,sad strength=0.5,1.0 data=london
    python experiments/sweep.py -m data=folder data.path=photos data.limit=20 shard=all/2 launcher=joblib
    python experiments/sweep.py -m experiment=strengths
    python experiments/sweep.py editor=sd15 editor.model=FOLDER editor.tokens.happy=learned_embeds.safetensors
    python experiments/report.py outputs/sweep

Stop it whenever you like; the same command goes on where it stopped. docs/experiments.md tells the rest.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import hydra
from hydra.errors import CompactHydraException
from omegaconf import DictConfig

import hydra_plugins.emoedit_together as together
from emoedit.evaluation.sweeps import with_one_editor
from emoedit.io.locks import end_with_parent
from emoedit.io.progress import progress
from emoedit.types import EmoEditError
from lib.running import run

if find_spec("cloudpickle"):  # submitit's processes do not find what lies beside this script: it is sent to them
    import cloudpickle

    cloudpickle.register_pickle_by_value(together)


@hydra.main(version_base="1.3", config_path="../configs", config_name="sweep")
def main(config: DictConfig) -> dict[str, int]:
    end_with_parent()  # a worker of launcher=joblib, whose locks would outlive a sweep that is killed
    job = together.job_of(config)
    try:
        counts = job.run(progress=lambda **options: progress(desc=job.key, **options))
    except EmoEditError as error:
        raise CompactHydraException(f"sweep: {job.key}: {error}") from None
    failed = f", {counts['failed']} of them failed" if counts["failed"] else ""
    print(f"{job.folder}: {counts['cells']} cells{failed}", file=sys.stderr, flush=True)
    return counts


if __name__ == "__main__":
    try:
        sys.argv[1:] = with_one_editor(sys.argv[1:])
    except EmoEditError as error:
        raise SystemExit(f"sweep: {error}") from None
    run(main)
