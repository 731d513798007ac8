"""Scores: of pixels, frames and sets, streaming and exact, and the pages that show them."""
