"""Measurements of exported files."""
