"""What only commands need: their flags, and how they start and fail."""
