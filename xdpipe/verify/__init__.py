"""Regression of a pipeline: what it makes of a capture, and whether that is what it once made."""

from xdpipe.verify.comparison import Comparison, compare
from xdpipe.verify.expectation import read, write
from xdpipe.verify.outcome import CaptureId, Outcome, observe

__all__ = ["CaptureId", "Comparison", "Outcome", "compare", "observe", "read", "write"]
