"""What annotators say of dialogues: as judgements of items, how far they agree, and their consensus."""
