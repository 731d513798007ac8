"""The server behind `export.serve`: parses REST requests and runs them in batches."""
