"""FlowSeg: one Keras network that segments a video frame and tells its motion, in one pass."""

__version__ = "0.1.0"
