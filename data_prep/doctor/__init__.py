"""Looks at records before a night of training is spent on them: see `data_prep.doctor.__main__`."""
