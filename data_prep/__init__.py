"""Converters from public data sets in their official layout to TFRecord shards, one module each."""
