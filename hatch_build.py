"""Build hook: compile the kernel program, and tag the wheel with the machine it was compiled for."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_BUILD_MODULE = Path("src") / "memory_tracer" / "bpf" / "build.py"


class KernelProgramHook(BuildHookInterface[Any]):
    """Runs for wheels and editable installs; a source distribution carries only sources."""

    def dependencies(self) -> list[str]:
        """Ask for a compiler where the machine has none."""
        build = self._build_module()
        return [] if build.has_clang() else [build.ZIG_REQUIREMENT]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in place; what is made is listed under ``artifacts`` in pyproject.toml."""
        self._build_module().build()
        platform_tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag}"

    def _build_module(self) -> ModuleType:
        # By its path: importing the package would need its dependencies, which are not installed yet.
        spec = importlib.util.spec_from_file_location("build", Path(self.root) / _BUILD_MODULE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
