"""Read by every Python process whose PYTHONPATH names this folder: breaks the runtime as VEIL_BROKEN says.

Nothing is imported before the runtime itself is: a process that never imports it pays for one environment look-up.
"""

import os
import sys

if os.environ.get("VEIL_BROKEN"):
    from importlib.abc import MetaPathFinder
    from importlib.machinery import PathFinder

    class _Watch(MetaPathFinder):
        """Lets the ordinary import run, then breaks the module, before anybody can take a function out of it."""

        def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
            if name != "veilstream.runtime.transaction":
                return None
            spec = PathFinder.find_spec(name, path, target)
            assert spec is not None and spec.loader is not None
            original = spec.loader.exec_module

            def exec_module(module):  # type: ignore[no-untyped-def]
                original(module)
                from tests.faults.broken import break_runtime

                break_runtime(module, os.environ)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
            return spec

    sys.meta_path.insert(0, _Watch())
