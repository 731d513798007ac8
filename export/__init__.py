"""Trained runs leave the house here: as a SavedModel for servers, as TFLite for edge devices."""
