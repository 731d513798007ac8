"""Records, label sets, file formats, decoding, augmentation and batches."""
