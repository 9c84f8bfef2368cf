"""Feedback in place of annotation: signals of users as weak labels, pooled by request; what to ask about."""
