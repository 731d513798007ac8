"""The server behind `export.serve`: REST requests and batches of them."""
