"""The stack of the pipeline suite, for faults that take minutes."""

from tests.pipeline.conftest import chain

__all__ = ["chain"]
