"""Experiments on accuracy, and the tables and figures made of them."""
