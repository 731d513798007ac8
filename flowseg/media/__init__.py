"""Frames in and pictures out: images, videos, drawing."""
