"""Accuracy studies, and their tables and figures."""
