"""Checks records for faults before training: see `data_prep.doctor.__main__`."""
