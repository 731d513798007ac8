"""Readers of public data sets: official folders in, TFRecord shards out. One module a data set."""
