"""Fetches the official archives of public data sets: addresses, HTTP, unpacking."""
