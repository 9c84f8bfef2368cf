"""The label model, from the words and signals of turns to what it believes of a dialogue."""
