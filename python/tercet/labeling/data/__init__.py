"""Dialogues: their format, files of them, logs of any size, and public data sets in it."""
