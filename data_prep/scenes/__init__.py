"""Synthetic worlds with exact flow and labels, written in KITTI's layout."""
