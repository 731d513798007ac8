"""Feeds damaged files to every part of FlowSeg that reads files: `python -m tests.fuzz`."""
