"""Records and what becomes of them: label sets, file formats, decoding, augmentation, batches."""
