"""How good labels are: cross-validation, metrics, the baseline, and a page to look at."""
