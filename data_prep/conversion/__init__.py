"""Shared by all converters: reading, checking, splitting and writing records."""
