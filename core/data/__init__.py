"""Data sets to tensors: tables, images and text from whatever file they come in, checked by line or member."""
