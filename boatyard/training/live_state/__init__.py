"""State that no state_dict holds (attributes, unsaved buffers, globals, generators): found, saved, put back by name."""

from boatyard.training.live_state.compare import changed, unsaved
from boatyard.training.live_state.encode import Captured, Encoder
from boatyard.training.live_state.live import LiveState
from boatyard.training.live_state.restore import restore

__all__ = ["Captured", "Encoder", "LiveState", "changed", "restore", "unsaved"]
