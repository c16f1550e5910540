"""Building an image a second time, elsewhere, and comparing the bytes."""
