"""Every op in plain torch, written for the reader.

Tests and benchmarks compare the kernels with these functions, and they run where a device has no kernel of ours.
"""
