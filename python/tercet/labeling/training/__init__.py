"""Training and pre-training of label models."""
