"""Scores of pixels, frames and record sets, streaming and exact, and HTML reports of them."""
