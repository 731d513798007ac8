"""Measurements of exported networks."""
