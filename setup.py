"""Builds the native engine into the wheel; `pyproject.toml` holds everything else."""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent

sys.path.insert(0, str(ROOT))  # an isolated build does not search the project's folder
import build_kernels  # noqa: E402


class BuildKernels(build_ext):
    """Compiles shared libraries without a Python interface; reports those that cannot be built and leaves them out."""

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


class KernelWheel(bdist_wheel):
    """Sets the wheel's tag: `py3-none-PLATFORM` with kernels, `py3-none-any` without."""

    def run(self):
        if self.distribution.has_ext_modules():
            self.run_command("build_ext")
            if not self.get_finalized_command("build_ext").get_outputs():
                self.distribution.ext_modules = None
                self.root_is_pure = True
                self.announce("no kernel was built: this wheel holds Python files only", level=3)
        super().run()

    def get_tag(self):
        _, _, platform = super().get_tag()
        return "py3", "none", platform


# An extension makes the wheel one for a platform and runs `build_ext`, which takes its sources from `build_kernels`.
KERNELS = [] if build_kernels.mode() == "none" else [Extension("itrex_sweet.runtime.native.lib.kernels", sources=[])]

setup(ext_modules=KERNELS, cmdclass={"build_ext": BuildKernels, "bdist_wheel": KernelWheel})
