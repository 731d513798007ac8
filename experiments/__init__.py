"""Recipes (one flagfile each), and the commands that show, measure and compare."""
