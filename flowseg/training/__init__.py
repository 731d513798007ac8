"""Training: configuration, losses, optimizer, callbacks, checkpoints and the loop."""
