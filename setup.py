"""What the package is called and needs, and how the embedded models and the configs travel inside it."""

import re
import tempfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
README = ROOT / "README.md"
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "emoedit/__init__.py").read_text("utf-8"), re.MULTILINE)[1]

# A build folder that stays would put what an earlier build left in it, a renamed module say, into the next wheel.
BUILD = tempfile.TemporaryDirectory(prefix="emoedit-build-")

CORE = [
    "torch>=2.6,!=2.13.0",  # 2.13.0: where only its CPU build is offered, it does not load with PyPI's torchvision
    "torchvision>=0.21",  # the pair of torch 2.6
    "facenet-pytorch==2.5.3",  # newer ones pin torch<2.3 and numpy<2
    "numpy",
    "pillow>=11",
    "opencv-python-headless>=4.10",  # headless: the other build needs libGL
    "safetensors",
    "diffusers>=0.32",
    "transformers>=4.50",  # text encoders and tokenizers
    "huggingface_hub>=0.25",  # the first whose errors are all in huggingface_hub.errors
    "tqdm",
    "scikit-image",  # brings the portrait of the demo
    "torchmetrics>=1.9",
    "jinja2",
]
TRAIN = ["accelerate", "hydra-core==1.3.*", "tensorboard"]
METRICS = ["lpips==0.1.4", "matplotlib>=3.8", "pandas", "torch-fidelity"]
SWEEPS = [*METRICS, "hydra-core==1.3.*", "hydra-joblib-launcher==1.2.*", "hydra-submitit-launcher==1.2.*"]
VIDEO = ["av>=12"]  # walks over strengths as MP4
REMOTE = ["requests"]  # editors that are services
RAY = [*SWEEPS, "hydra-ray-launcher==1.2.*"]  # for those who have a cluster
TEST = [*TRAIN, *METRICS, *SWEEPS, *REMOTE, "pytest", "pytest-xdist", "pyyaml", "ruff", "scipy", "setuptools>=77"]


class BuildWithData(build_py):
    """Puts the top-level folders ``checkpoints`` and ``configs`` into the package.

    An editable installation gets no copy: it goes on using the folders beside the package.
    """

    def _data(self) -> list[tuple[Path, Path]]:
        """Source and target of every file that is not hidden (a model being written is)."""
        if self.editable_mode:
            return []
        names = [path.relative_to(ROOT) for folder in ("checkpoints", "configs") for path in (ROOT / folder).rglob("*")]
        shown = [n for n in names if (ROOT / n).is_file() and not any(part.startswith(".") for part in n.parts)]
        return [(ROOT / name, Path(self.build_lib, "emoedit", name)) for name in sorted(shown)]

    def run(self) -> None:
        super().run()
        for source, target in self._data():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target), preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self._data())]


setup(
    name="emoedit",
    version=VERSION,
    description="Changes the emotion a face shows in an existing photograph",
    long_description=README.read_text("utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    author="The emoedit authors",
    license_expression="Apache-2.0",
    keywords=["emotion", "facial expression", "face editing", "photograph"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Multimedia :: Graphics",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(str(ROOT), include=["emoedit", "emoedit.*"]),
    package_data={"emoedit": ["py.typed", "report/*.j2"]},
    install_requires=CORE,
    extras_require={
        "train": TRAIN,
        "metrics": METRICS,
        "sweeps": SWEEPS,
        "ray": RAY,
        "video": VIDEO,
        "remote": REMOTE,
        "test": sorted({*TEST}),
        "all": sorted({*TRAIN, *METRICS, *SWEEPS, *VIDEO, *REMOTE, *TEST}),
    },
    entry_points={"console_scripts": ["emoedit = emoedit.cli:main"]},
    cmdclass={"build_py": BuildWithData},
    options={"build": {"build_base": BUILD.name}},
    zip_safe=False,
)
