"""Training recipes (flagfiles), and commands that demonstrate, measure and compare."""
