"""How far labels of a model can be trusted: calibration, and thresholds that keep a promised precision."""
